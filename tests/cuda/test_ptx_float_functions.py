"""Functions of floats: extremes, quotients, roots, approximations, comparisons, signs."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from exact import NANS, flushed, rounded, value
from float_bits import BITS, as_float, check, given, lists
from snippets import compute, samples


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("name", ["min", "max"])
def test_minimum_and_maximum_ignore_nan(kind, name):
    a, b = given(kind, 2, 11)
    nan = NANS.get(kind, 0x7FF8000000000000)

    def chosen(x, y, keeps):
        p, q = as_float(x, kind), as_float(y, kind)
        if math.isnan(p) or math.isnan(q):
            return nan if keeps or (math.isnan(p) and math.isnan(q)) else y if math.isnan(p) else x
        low, high = sorted((x, y), key=lambda bits: (as_float(bits, kind), math.copysign(1, as_float(bits, kind))))
        return low if name == "min" else high

    found = compute(f"{name}.{kind} %d, %a, %b;", a, b, out=BITS[kind])
    check(found, [chosen(x, y, False) for x, y in lists(a, b)], kind)
    if kind != "f64":
        found = compute(f"{name}.NaN.{kind} %d, %a, %b;", a, b, out=BITS[kind])
        check(found, [chosen(x, y, True) for x, y in lists(a, b)], kind)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_quotients_and_roots_are_rounded_correctly(kind):
    a, b = given(kind, 2, 12)
    keep = [
        n
        for n, (x, y) in enumerate(lists(a, b))
        if all(math.isfinite(as_float(v, kind)) and as_float(v, kind) for v in (x, y))
    ]
    a, b = a[keep], b[keep]
    found = compute(f"div.rn.{kind} %d, %a, %b;", a, b, out=BITS[kind])
    check(found, [rounded(value(x, kind) / value(y, kind), kind) for x, y in lists(a, b)], kind)
    found = compute(f"rcp.rn.{kind} %d, %a;", a, out=BITS[kind])
    check(found, [rounded(1 / value(x, kind), kind) for x in a.tolist()], kind)
    positive = a & np.array((1 << (8 * a.dtype.itemsize - 1)) - 1, a.dtype)
    found = compute(f"sqrt.rn.{kind} %d, %a;", positive, out=BITS[kind])
    for x, root in lists(positive, found):
        exact, low, high = value(x, kind), root - 1, root + 1
        edges = [(value(root, kind) + value(n, kind)) / 2 for n in (low, high)]
        assert edges[0] ** 2 <= exact <= edges[1] ** 2


def test_approximations_are_close():
    (a,) = samples(13, "f4", 200, 1)
    a = a[np.isfinite(a) & (np.abs(a) < 100) & (np.abs(a) > 1e-30)]
    for name, function in (
        ("ex2", lambda x: 2.0**x),
        ("lg2", math.log2),
        ("sin", math.sin),
        ("cos", math.cos),
        ("tanh", math.tanh),
        ("rcp", lambda x: 1 / x),
        ("sqrt", math.sqrt),
        ("rsqrt", lambda x: 1 / math.sqrt(x)),
    ):
        values = np.abs(a) if name in ("lg2", "sqrt", "rsqrt") else a
        found = compute(f"{name}.approx.f32 %d, %a;", values, out="f4")
        assert found.tolist() == [float(np.float32(function(x))) for x in values.tolist()], name
    found = compute("div.full.f32 %d, %a, %b;", a, a[::-1].copy(), out="f4")
    assert found.tolist() == [float(np.float32(x / y)) for x, y in lists(a, a[::-1])]


def test_approximations_where_there_is_no_value():
    edge = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 1e-40], "f4")
    nan = 0x7FFFFFFF

    def bits(name):
        return compute(f"{name} %d, %a;", edge).tolist()

    plus, minus = 0x7F800000, 0xFF800000
    assert bits("ex2.approx.ftz.f32") == [0x3F800000, 0x3F800000, plus, 0, nan, 0x3F000000, 0x3F800000]
    assert bits("lg2.approx.ftz.f32") == [minus, minus, plus, nan, nan, nan, minus]
    assert bits("rcp.approx.ftz.f32") == [plus, minus, 0, 0x80000000, nan, 0xBF800000, plus]
    assert bits("rsqrt.approx.ftz.f32") == [plus, minus, 0, nan, nan, nan, plus]
    assert bits("sqrt.approx.ftz.f32") == [0, 0x80000000, plus, nan, nan, nan, 0]


@pytest.mark.parametrize(("name", "kind"), [("ex2.approx", "f16"), ("tanh.approx", "f16"), ("tanh.approx", "bf16"),
                                            ("ex2.approx.ftz", "bf16")])  # fmt: skip
def test_approximations_of_halves(name, kind):
    (a,) = given(kind, 1, 20)
    function = math.tanh if name.startswith("tanh") else lambda x: 2.0 ** min(x, 1000.0)
    found = compute(f"{name}.{kind} %d, %a;", a, out="u2")
    for x, bits in lists(found, a):
        number = as_float(flushed(bits, kind) if "ftz" in name else bits, kind)
        if math.isnan(number):
            assert x == 0x7FFF
        elif number == 0:
            assert x == (rounded(Fraction(1), kind) if name.startswith("ex2") else bits & 0x8000)
        else:
            expected = rounded(Fraction(function(number)), kind)
            assert x == (flushed(expected, kind) if "ftz" in name else expected)


def test_every_nan_of_float32_is_the_same():
    """Code that rounds to bfloat16 by adding to the bits sees 0x7fffffff on a GPU, and so it must here."""
    nan = np.array([0x7FC00000, 0xFFC00001, 0x7F800001, 0x3F800000], "u4")
    assert compute("add.f32 %d, %a, 0f3F800000;", nan).tolist() == [0x7FFFFFFF] * 3 + [0x40000000]
    assert compute("mul.f32 %d, %a, 0f3F800000;", nan).tolist() == [0x7FFFFFFF] * 3 + [0x3F800000]
    assert compute("fma.rn.f32 %d, %a, %a, %a;", nan).tolist() == [0x7FFFFFFF] * 3 + [0x40000000]
    assert compute("mov.f32 %d, %a;", nan).tolist() == nan.tolist()


COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16"])
def test_comparisons(kind):
    a, b = given(kind, 2, 14, 40)
    for name in COMPARISONS:
        found = compute(f"setp.{name}.{kind} %d, %a, %b;", a, b, out="?")
        for x, y, yes in lists(a, b, found):
            p, q = as_float(x, kind), as_float(y, kind)
            unordered = math.isnan(p) or math.isnan(q)
            if name in ("num", "nan"):
                expected = unordered == (name == "nan")
            elif unordered:
                expected = name.endswith("u")
            else:
                expected = getattr(p, f"__{name.removesuffix('u')}__")(q)
            assert yes == expected, (name, p, q)


def test_kinds_of_values():
    (a,) = given("f32", 1, 15)
    tests = {
        "finite": math.isfinite,
        "infinite": math.isinf,
        "number": lambda x: not math.isnan(x),
        "notanumber": math.isnan,
        "normal": lambda x: math.isfinite(x) and abs(x) >= 2.0**-126,
        "subnormal": lambda x: 0 < abs(x) < 2.0**-126,
    }
    for name, function in tests.items():
        found = compute(f"testp.{name}.f32 %d, %a;", a, out="?")
        assert found.tolist() == [function(as_float(x, "f32")) for x in a.tolist()]


def test_signs():
    a, b = given("f32", 2, 16)
    assert compute("copysign.f32 %d, %a, %b;", a, b).tolist() == [
        y & 0x7FFFFFFF | x & 0x80000000 for x, y in lists(a, b)
    ]
    halves = given("f16", 1, 17)[0]
    assert compute("neg.f16 %d, %a;", halves, out="u2").tolist() == [x ^ 0x8000 for x in halves.tolist()]
    assert compute("abs.bf16 %d, %a;", halves, out="u2").tolist() == [x & 0x7FFF for x in halves.tolist()]
    assert compute("neg.f16x2 %d, %a;", a).tolist() == [x ^ 0x80008000 for x in a.tolist()]
    assert compute("abs.f32 %d, %a;", a).tolist() == [x & 0x7FFFFFFF for x in a.tolist()]
