"""Sums and products of floats, against fractions that are rounded bit by bit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from exact import flushed, rounded, value
from float_bits import BITS, as_float, check, exactly, given, lists
from snippets import compute


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_float32_in_every_rounding(name, mode):
    a, b = given("f32", 2)
    found = compute(f"{name}.{mode}.f32 %d, %a, %b;", a, b)
    check(found, [exactly("f32", mode, name, x, y) for x, y in lists(a, b)], "f32")


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
@pytest.mark.parametrize("kind", ["f64", "f16", "bf16"])
def test_other_formats(kind, name):
    a, b = given(kind, 2)
    found = compute(f"{name}.rn.{kind} %d, %a, %b;", a, b, out=BITS[kind])
    check(found, [exactly(kind, "rn", name, x, y) for x, y in lists(a, b)], kind)


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma", "div"])
def test_float64_in_every_rounding(name, mode):
    parts = given("f64", 3 if name == "fma" else 2, 18, 60)
    operands = ", ".join(f"%{letter}" for letter in "abc"[: len(parts)])
    if name == "div":
        finite = [n for n, row in enumerate(lists(*parts)) if all(math.isfinite(as_float(x, "f64")) for x in row)]
        parts = [part[[n for n in finite if as_float(int(parts[1][n]), "f64")]] for part in parts]
    found = compute(f"{name}.{mode}.f64 %d, {operands};", *parts, out="u8")
    if name == "div":
        for x, a, b in lists(found, *parts):
            exact = value(a, "f64") / value(b, "f64")
            assert x == rounded(exact, "f64", mode, bool(a >> 63) ^ bool(b >> 63))
    else:
        check(found, [exactly("f64", mode, name, *row) for row in lists(*parts)], "f64")


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
def test_quotients_of_float32_in_every_rounding(mode):
    a, b = given("f32", 2, 19)
    kept = [n for n, row in enumerate(lists(a, b)) if all(0 < abs(as_float(x, "f32")) < math.inf for x in row)]
    a, b = a[kept], b[kept]
    found = compute(f"div.{mode}.f32 %d, %a, %b;", a, b)
    check(found, [rounded(value(x, "f32") / value(y, "f32"), "f32", mode) for x, y in lists(a, b)], "f32")
    found = compute(f"rcp.{mode}.f32 %d, %a;", a)
    check(found, [rounded(1 / value(x, "f32"), "f32", mode) for x in a.tolist()], "f32")


def near_halves(count):
    """Return bits of float32 a, b, c: as a double, a * b + c lies halfway between two float32, but for a little."""
    rng = np.random.default_rng(3)
    a = (1 + rng.integers(0, 2**12, count) * 2.0**-12).astype("f4")
    b = (1 + rng.integers(0, 2**12, count) * 2.0**-12).astype("f4")
    c = (2.0 ** rng.integers(24, 60, count) * rng.choice([-1, 1], count)).astype("f4")
    tiny = (2.0 ** rng.integers(-149, -120, count)).astype("f4")
    half = (2.0 ** rng.integers(-75, -50, count)).astype("f4")
    one = np.ones(count, "f4")
    triples = [(a, b, c), (half, half, tiny), (one + np.float32(2**-23), one, c * np.float32(2.0**-59)), (a, b, tiny)]
    return [np.concatenate(part).view("u4") for part in zip(*triples, strict=True)]


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_fused_float32_is_rounded_once(mode):
    parts = [np.concatenate(pair) for pair in zip(given("f32", 3, 4, 300), near_halves(300), strict=True)]
    found = compute(f"fma.{mode}.f32 %d, %a, %b, %c;", *parts)
    check(found, [exactly("f32", mode, "fma", *row) for row in lists(*parts)], "f32")


# Two float32 whose product is 1 + 2**-36
ABOVE = (1 + 2.0**-12, 1 - 2.0**-12 + 2.0**-24)


def test_a_double_on_the_way_would_round_twice():
    """1 + 2**-24 + 2**-60 rounds to 1 + 2**-23; a double loses the last term, and its tie goes to the even 1."""
    a, b, c = (np.array([x], "f4") for x in (ABOVE[0] * 2.0**-24, ABOVE[1], 1.0))
    assert (a.astype("f8") * b + c).astype("f4") == 1
    assert compute("fma.rn.f32 %d, %a, %b, %c;", a, b, c, out="f4").tolist() == [1 + 2.0**-23]
    a, c = -a, np.array([1 + 2.0**-22], "f4")
    assert (a.astype("f8") * b + c).astype("f4") == c
    assert compute("fma.rn.f32 %d, %a, %b, %c;", a, b, c, out="f4").tolist() == [1 + 2.0**-23]


def test_a_double_on_the_way_to_a_tiny_number_would_too():
    """The tie of subnormal numbers lies at another bit of the double."""
    a, b, c = (np.array([x], "f4") for x in (ABOVE[0] * 2.0**-75, ABOVE[1] * 2.0**-75, 2.0**-127))
    assert (a.astype("f8") * b + c).astype("f4") == c
    assert compute("fma.rn.f32 %d, %a, %b, %c;", a, b, c, out="f4").tolist() == [2.0**-127 + 2.0**-149]


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("mode", ["rn", "rm"])
def test_zeros_have_signs(kind, mode):
    if mode != "rn" and kind in ("f16", "bf16"):
        mode = "rn"
    sign = 1 << (8 * np.dtype(BITS[kind]).itemsize - 1)
    one = rounded(Fraction(1), kind)
    known = [0, sign, one, one | sign]
    rows = [(a, b, c) for a in known for b in known for c in known]
    parts = [np.array(part, "u8").astype(BITS[kind]) for part in zip(*rows, strict=True)]
    for name, count in (("add", 2), ("sub", 2), ("mul", 2), ("fma", 3)):
        operands = ", ".join(f"%{letter}" for letter in "abc"[:count])
        found = compute(f"{name}.{mode}.{kind} %d, {operands};", *parts[:count], out=BITS[kind])
        check(found, [exactly(kind, mode, name, *row[:count]) for row in rows], kind)


@pytest.mark.parametrize("kind", ["f64", "f16", "bf16"])
def test_fused_other_formats(kind):
    parts = given(kind, 3, 5, 300)
    found = compute(f"fma.rn.{kind} %d, %a, %b, %c;", *parts, out=BITS[kind])
    check(found, [exactly(kind, "rn", "fma", *row) for row in lists(*parts)], kind)


def test_fused_float64_where_terms_cancel():
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((2, 300))
    c = -(a * b) * (1 + rng.integers(-3, 4, 300) * 2.0**-52)
    found = compute("fma.rn.f64 %d, %a, %b, %c;", a, b, c, out="f8")
    expected = [float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in lists(a, b, c)]
    assert found.tolist() == expected


@pytest.mark.parametrize("name", ["add", "mul", "fma"])
def test_tiny_values_are_flushed(name):
    parts = given("f32", 3 if name == "fma" else 2, 7)
    if len(parts) == 3:
        parts = [np.concatenate(pair) for pair in zip(parts, near_halves(100), strict=True)]
    operands = ", ".join(f"%{letter}" for letter in "abc"[: len(parts)])
    found = compute(f"{name}.rn.ftz.f32 %d, {operands};", *parts)
    expected = [flushed(exactly("f32", "rn", name, *(flushed(x, "f32") for x in row)), "f32") for row in lists(*parts)]
    check(found, expected, "f32")


def test_saturation():
    parts = given("f32", 3, 8)
    found = compute("fma.rn.sat.f32 %d, %a, %b, %c;", *parts).view("f4")
    plain = compute("fma.rn.f32 %d, %a, %b, %c;", *parts).view("f4")
    expected = [0.0 if math.isnan(x) or x <= 0 else min(x, 1.0) for x in plain.tolist()]
    assert found.tolist() == expected and not np.signbit(found).any()


@pytest.mark.parametrize("kind", ["f16x2", "bf16x2"])
def test_two_at_once(kind):
    one = kind.removesuffix("x2")
    lanes = [given(one, 3, seed) for seed in (9, 10)]
    words = [low.astype("u4") | high.astype("u4") << 16 for low, high in zip(*lanes, strict=True)]
    for name, count in (("add", 2), ("mul", 2), ("fma", 3)):
        operands = ", ".join(f"%{letter}" for letter in "abc"[:count])
        found = compute(f"{name}.rn.{kind} %d, {operands};", *words[:count])
        for shift, parts in zip((0, 16), lanes, strict=True):
            expected = [exactly(one, "rn", name, *row) for row in lists(*parts[:count])]
            check((found >> shift & 0xFFFF), expected, one)
