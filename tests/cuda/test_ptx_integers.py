"""Whole numbers, against Python's own."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import Fault
from snippets import compute, samples, specials

DTYPES = {"u16": "u2", "s16": "i2", "u32": "u4", "s32": "i4", "u64": "u8", "s64": "i8"}


def wrap(value: int, dtype: str) -> int:
    bits = 8 * np.dtype(dtype).itemsize
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype[0] == "i" and value >> (bits - 1) else value


def lists(*arrays):
    return zip(*[array.tolist() for array in arrays], strict=True)


def check(code, function, arrays, out):
    found = compute(code, *arrays, out=out).tolist()
    assert found == [wrap(function(*row), out) for row in lists(*arrays)]


@pytest.mark.parametrize("kind", ["s16", "s32", "s64"])
def test_signs(kind):
    arrays = samples(1, DTYPES[kind], 40, 1)
    check(f"abs.{kind} %d, %a;", abs, arrays, DTYPES[kind])
    check(f"neg.{kind} %d, %a;", lambda a: -a, arrays, DTYPES[kind])


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", ["add", "sub", "mul.lo", "mul.hi", "min", "max"])
def test_arithmetic(kind, name):
    dtype = DTYPES[kind]
    bits = 8 * np.dtype(dtype).itemsize
    functions = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul.lo": lambda a, b: a * b,
        "mul.hi": lambda a, b: a * b >> bits,
        "min": min,
        "max": max,
    }
    check(f"{name}.{kind} %d, %a, %b;", functions[name], samples(2, dtype, 60, 2), dtype)


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32"])
def test_wide_products(kind):
    dtype = DTYPES[kind]
    twice = f"{dtype[0]}{2 * np.dtype(dtype).itemsize}"
    a, b = samples(3, dtype, 60, 2)
    c = samples(4, twice, len(a), 1)[0][: len(a)]
    check(f"mul.wide.{kind} %d, %a, %b;", lambda a, b: a * b, [a, b], twice)
    check(f"mad.wide.{kind} %d, %a, %b, %c;", lambda a, b, c: a * b + c, [a, b, c], twice)


@pytest.mark.parametrize("kind", DTYPES)
def test_multiply_and_add(kind):
    dtype = DTYPES[kind]
    bits = 8 * np.dtype(dtype).itemsize
    a, b, c = samples(5, dtype, 60, 3)
    check(f"mad.lo.{kind} %d, %a, %b, %c;", lambda a, b, c: a * b + c, [a, b, c], dtype)
    check(f"mad.hi.{kind} %d, %a, %b, %c;", lambda a, b, c: (a * b >> bits) + c, [a, b, c], dtype)
    check(f"sad.{kind} %d, %a, %b, %c;", lambda a, b, c: abs(a - b) + c, [a, b, c], dtype)


@pytest.mark.parametrize("kind", DTYPES)
def test_division_cuts_off_toward_zero(kind):
    dtype = DTYPES[kind]
    a, b = samples(6, dtype, 60, 2)
    b = np.where(b == 0, 3, b).astype(dtype)

    def quotient(a, b):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)

    check(f"div.{kind} %d, %a, %b;", quotient, [a, b], dtype)
    check(f"rem.{kind} %d, %a, %b;", lambda a, b: a - b * quotient(a, b), [a, b], dtype)


def test_division_by_zero_is_an_error():
    with pytest.raises(Fault, match=r"thread \(2, 0, 0\).*divides by zero\nkernel kernel, line \d+: div.s32"):
        compute("div.s32 %d, %a, %b;", np.array([1, 2, 3], "i4"), np.array([1, 1, 0], "i4"))


def test_saturation():
    a, b = samples(7, "i4", 60, 2)

    def held(value):
        return max(-(2**31), min(2**31 - 1, value))

    check("add.sat.s32 %d, %a, %b;", lambda a, b: held(a + b), [a, b], "i4")
    check("sub.sat.s32 %d, %a, %b;", lambda a, b: held(a - b), [a, b], "i4")


def test_24_bits():
    a, b = samples(8, "u4", 60, 2)
    check("mul24.lo.u32 %d, %a, %b;", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF), [a, b], "u4")
    check("mul24.hi.u32 %d, %a, %b;", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 16, [a, b], "u4")


@pytest.mark.parametrize("kind", ["u16x2", "s16x2"])
def test_two_words_at_once(kind):
    parts = [samples(seed, "i2" if kind[0] == "s" else "u2", 60, 2) for seed in (30, 31)]
    words = [low.view("u2").astype("u4") | high.view("u2").astype("u4") << 16 for low, high in zip(*parts, strict=True)]
    for name, function in (("add", lambda a, b: a + b), ("min", min), ("max", max)):
        found = compute(f"{name}.{kind} %d, %a, %b;", *words)
        for shift, (a, b) in zip((0, 16), parts, strict=True):
            assert (found >> shift & 0xFFFF).tolist() == [function(x, y) % 2**16 for x, y in lists(a, b)]


def test_carries_make_long_sums():
    low_a, low_b = samples(9, "u4", 60, 2)
    high_a, high_b = samples(10, "u4", 60, 2)
    pairs = [low_a, high_a, low_b, high_b]
    for plus, first, second in ((True, "add.cc", "addc"), (False, "sub.cc", "subc")):
        code = f"{first}.u32 %d0, %a, %c; {second}.u32 %d1, %b, %e;"
        low, high = compute(code, *pairs, results=2)
        for a, b, c, e, x, y in lists(*pairs, low, high):
            left, right = a | b << 32, c | e << 32
            assert x | y << 32 == (left + right if plus else left - right) % 2**64


def test_carries_make_long_products():
    a, b = samples(11, "u4", 60, 2)
    c, e = samples(12, "u4", 60, 2)
    low, high = compute("mad.lo.cc.u32 %d0, %a, %b, %c; madc.hi.u32 %d1, %a, %b, %e;", a, b, c, e, results=2)
    for p, q, r, s, x, y in lists(a, b, c, e, low, high):
        assert x | y << 32 == (p * q + r + (s << 32)) % 2**64


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(kind, name):
    a, b = samples(24, DTYPES[kind], 60, 2)
    function = getattr(int, f"__{name}__")
    found = compute(f"setp.{name}.{kind} %d, %a, %b;", a, b, out="?")
    assert found.tolist() == [function(x, y) for x, y in lists(a, b)]
    ones = compute(f"set.{name}.u32.{kind} %d, %a, %b;", a, b)
    assert ones.tolist() == [0xFFFFFFFF if function(x, y) else 0 for x, y in lists(a, b)]


def test_unsigned_names_of_comparisons():
    a, b = samples(25, "u4", 60, 2)
    for name, same in (("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")):
        codes = [f"setp.{n}.u32 %d, %a, %b;" for n in (name, same)]
        assert (compute(codes[0], a, b, out="?") == compute(codes[1], a, b, out="?")).all()


def test_comparisons_are_joined_and_give_their_opposite():
    a, b = samples(26, "i4", 60, 2)
    p = np.arange(len(a), dtype="u4") % 2
    for join, function in (("and", "__and__"), ("or", "__or__"), ("xor", "__xor__")):
        for mark in ("", "!"):
            code = f"setp.ne.u32 %p0, %c, 0; setp.lt.{join}.s32 %d0|%d1, %a, %b, {mark}%p0;"
            found, other = compute(code, a, b, p, out="?", results=2)
            for x, y, z, yes, no in lists(a, b, p, found, other):
                third = bool(z) ^ bool(mark)
                assert yes == getattr(x < y, function)(third) and no == getattr(not x < y, function)(third)


def test_choices():
    a, b = samples(27, "u8", 20, 2)
    p = (np.arange(len(a)) % 3 == 0).astype("u4")
    found = compute("setp.ne.u32 %p0, %c, 0; selp.b64 %d, %a, %b, %p0;", a, b, p, out="u8")
    assert found.tolist() == [x if z else y for x, y, z in lists(a, b, p)]
    sign = specials("i4").repeat(80)[: len(a)]
    found = compute("slct.u64.s32 %d, %a, %b, %c;", a, b, np.resize(specials("i4"), len(a)), out="u8")
    assert len(sign) and found.tolist() == [
        x if z >= 0 else y for x, y, z in lists(a, b, np.resize(specials("i4"), len(a)))
    ]


def test_vectors_are_packed_and_unpacked():
    a, b = samples(28, "u4", 20, 2)
    assert compute("mov.b64 %d, {%a, %b};", a, b, out="u8").tolist() == [x | y << 32 for x, y in lists(a, b)]
    halves = compute("mov.b32 {%h0, %h1}, %a; mov.b32 %d, {%h1, %h0};", a)
    assert halves.tolist() == [x >> 16 | (x & 0xFFFF) << 16 for x in a.tolist()]
    low, high = compute("mov.b64 %rd9, {%a, %b}; mov.b64 {%d0, %d1}, %rd9;", a, b, results=2)
    assert (low == a).all() and (high == b).all()
    assert (compute("mov.b64 %rd9, {%a, %b}; mov.b64 {_, %d}, %rd9;", a, b) == b).all()


@pytest.mark.parametrize("kind", ["u8", "s8", *DTYPES])
@pytest.mark.parametrize("to", ["u8", "s8", *DTYPES])
def test_conversions(kind, to):
    source = {"u8": "u1", "s8": "i1"}.get(kind, DTYPES.get(kind))
    target = {"u8": "u1", "s8": "i1"}.get(to, DTYPES.get(to))
    (a,) = samples(29, source, 60, 1)
    out = f"{target[0]}{max(2, np.dtype(target).itemsize)}"
    found = compute(f"cvt.{to}.{kind} %d, %a;", a, out=out)
    assert found.tolist() == [wrap(x, target) for x in a.tolist()]
    low, high = int(np.iinfo(target).min), int(np.iinfo(target).max)
    if low <= np.iinfo(source).min and np.iinfo(source).max <= high:
        return  # there is nothing to hold
    found = compute(f"cvt.sat.{to}.{kind} %d, %a;", a, out=out)
    assert found.tolist() == [max(low, min(high, x)) for x in a.tolist()]
