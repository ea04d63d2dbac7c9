"""cvt with floats, against fractions that are rounded bit by bit."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from exact import FORMATS, NANS, flushed, is_infinite, is_nan, rounded, value
from float_bits import BITS, as_float, given, lists
from snippets import compute, samples

# cvt between bf16 and whole numbers of 8 bits does not exist.
PAIRS = [(kind, name) for kind in ("f16", "bf16", "f32", "f64") for name in ("u8", "s8", "u16", "s16", "u32", "s32",
         "u64", "s64") if kind != "bf16" or name[1:] != "8"]  # fmt: skip
INTEGERS = {"u8": "u1", "s8": "i1", "u16": "u2", "s16": "i2", "u32": "u4", "s32": "i4", "u64": "u8", "s64": "i8"}
FLOATS = ("f16", "bf16", "f32", "f64")


def converted(bits, source, target, mode):
    """Return the bits of a float in another format."""
    form = FORMATS[target]
    sign = form.sign if bits & FORMATS[source].sign else 0
    if is_nan(bits, source):
        return NANS.get(target, form.infinity + 1)
    if is_infinite(bits, source):
        return form.infinity | sign
    return rounded(value(bits, source), target, mode, bool(sign))


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", FLOATS)
def test_floats_to_floats(source, target):
    (a,) = given(source, 1, 30, 300)
    narrows = FORMATS[target].fraction < FORMATS[source].fraction
    modes = ["rn"] if narrows or target != source else [""]
    if (source, target) in (("f64", "f32"), ("f32", "f16"), ("f32", "bf16"), ("f64", "f16")):
        modes = ["rn", "rz", "rm", "rp"]
    if source == target or not narrows:
        modes = [""] if (source, target) != ("f16", "bf16") else ["rn"]
    for mode in modes:
        found = compute(f"cvt{'.' if mode else ''}{mode}.{target}.{source} %d, %a;", a, out=BITS[target])
        for x, bits in lists(found, a):
            expected = converted(bits, source, target, mode or "rn")
            assert x == expected or (target == "f64" and is_nan(x, target) and is_nan(expected, target))


def test_flushing():
    (a,) = given("f32", 1, 31, 300)
    found = compute("cvt.rn.ftz.f16.f32 %d, %a;", a, out="u2")
    assert found.tolist() == [converted(flushed(x, "f32"), "f32", "f16", "rn") for x in a.tolist()]
    (wide,) = given("f64", 1, 32, 300)
    found = compute("cvt.rn.ftz.f32.f64 %d, %a;", wide)
    assert found.tolist() == [flushed(converted(x, "f64", "f32", "rn"), "f32") for x in wide.tolist()]


def test_saturation():
    (a,) = given("f32", 1, 33, 300)
    found = compute("cvt.sat.f32.f32 %d, %a;", a, out="f4").tolist()
    values = [as_float(x, "f32") for x in a.tolist()]
    assert found == [0.0 if math.isnan(x) else max(0.0, min(1.0, x)) for x in values]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_floats_to_whole_numbers_are_held(source, target):
    (a,) = given(source, 1, 34, 150)
    info = np.iinfo(INTEGERS[target])
    low, high, width = int(info.min), int(info.max), info.bits
    out = f"{INTEGERS[target][0]}{max(2, width // 8)}"
    modes = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}
    for mode, function in modes.items():
        found = compute(f"cvt.{mode}.{target}.{source} %d, %a;", a, out=out)
        for x, bits in lists(found, a):
            number = as_float(bits, source)
            if math.isnan(number):
                expected = (1 << (width - 1)) if source == "f64" or width == 64 else 0
                expected -= 1 << width if expected > high else 0
            elif math.isinf(number):
                expected = high if number > 0 else low
            else:
                expected = max(low, min(high, function(number)))
            assert x == expected, (mode, number)


@pytest.mark.parametrize(("target", "source"), PAIRS)
def test_whole_numbers_to_floats(source, target):
    (a,) = samples(35, INTEGERS[source], 150, 1)
    for mode in ("rn", "rz", "rm", "rp"):
        found = compute(f"cvt.{mode}.{target}.{source} %d, %a;", a, out=BITS[target])
        assert found.tolist() == [rounded(Fraction(x), target, mode) for x in a.tolist()], mode


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_floats_to_whole_floats(kind):
    (a,) = given(kind, 1, 36, 150)
    dtype = f"f{np.dtype(BITS[kind]).itemsize}"
    for mode, function in {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}.items():
        found = compute(f"cvt.{mode}.{kind}.{kind} %d, %a;", a, out=dtype)
        assert np.array_equal(found, function(a.view(dtype)), equal_nan=True)


@pytest.mark.parametrize("target", ["f16", "bf16"])
def test_pairs(target):
    a, b = given("f32", 2, 37)
    for mode in ("rn", "rz"):
        found = compute(f"cvt.{mode}.{target}x2.f32 %d, %a, %b;", a, b)
        high, low = found >> 16, found & 0xFFFF
        for x, y, p, q in lists(high, low, a, b):
            assert x == converted(p, "f32", target, mode) and y == converted(q, "f32", target, mode)
    found = compute(f"cvt.rn.relu.{target}x2.f32 %d, %a, %a;", a)
    for x, p in lists(found & 0xFFFF, a):
        negative = as_float(p, "f32") < 0 or (as_float(p, "f32") == 0 and p >> 31)
        assert x & 0x7FFF == (0 if negative else converted(p, "f32", target, "rn"))


def eight_bits(name):
    """Return what each pattern stands for, from the definition: as a float16 that was cut off, or by its fields."""
    found = []
    for code in range(256):
        if name == "e5m2":
            found.append(as_float(code << 8, "f16"))
        elif code & 0x7F == 0x7F:
            found.append(math.nan)
        else:
            exponent, fraction = code >> 3 & 15, code & 7
            size = math.ldexp(8 + fraction if exponent else fraction, max(exponent, 1) - 10)
            found.append(-size if code & 0x80 else size)
    return found


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_floats_of_eight_bits(name):
    table = eight_bits(name)
    codes = np.arange(256, dtype="u2")
    pairs = codes | codes[::-1] << 8
    words = compute(f"cvt.rn.f16x2.{name}x2 %d, %a;", pairs)
    for word, code in lists(words, codes):
        for half, source in ((word & 0xFFFF, code), (word >> 16, 255 - code)):
            x, y = as_float(half, "f16"), table[source]
            assert (math.isnan(x) and math.isnan(y)) or (x == y and math.copysign(1, x) == math.copysign(1, y))
    finite = sorted(x for x in table if math.isfinite(x) and x >= 0)
    between = [(p + q) / 2 for p, q in pairwise(finite)]
    values = np.array([*finite, *between, *np.random.default_rng(38).uniform(-500, 500, 200), 1e6, -1e9], "f4")
    found = compute(f"cvt.rn.satfinite.{name}x2.f32 %d, %a, %b;", -values, values, out="u2")
    for word, x in lists(found, values):
        distance = min(abs(abs(x) - y) for y in finite)
        nearest = [n for n, y in enumerate(table[:128]) if math.isfinite(y) and abs(abs(x) - y) == distance]
        even = [n for n in nearest if n % 2 == 0]
        expected = (even if len(nearest) > 1 else nearest)[0]
        assert word & 0x7F == expected and word >> 8 & 0x7F == expected
        assert (word >> 7 & 1, word >> 15) == (int(math.copysign(1, x) < 0), int(math.copysign(1, x) > 0))


def test_tf32_keeps_ten_bits():
    (a,) = given("f32", 1, 39)
    found = compute("cvt.rna.tf32.f32 %d, %a;", a)
    for x, bits in lists(found, a):
        if is_nan(bits, "f32") or is_infinite(bits, "f32"):
            assert x == (0x7FFFFFFF if is_nan(bits, "f32") else bits)
        else:
            size = (bits & 0x7FFFFFFF) / 2**13
            assert x == int(size + Fraction(1, 2)) * 2**13 | bits & 0x80000000


def test_narrow_values_in_wide_registers():
    a = np.array([0x180, 0x7F, 0xFFFFFFFF], "u4")
    assert compute("cvt.s32.s8 %d, %a;", a, out="i4").tolist() == [-128, 127, -1]
    assert compute("cvt.u32.u8 %d, %a;", a).tolist() == [0x80, 0x7F, 0xFF]
    assert compute("cvt.s8.s32 %d, %a;", a, out="i4").tolist() == [-128, 127, -1]
    assert compute("cvt.u8.u32 %d, %a;", a, out="u8").tolist() == [0x80, 0x7F, 0xFF]
