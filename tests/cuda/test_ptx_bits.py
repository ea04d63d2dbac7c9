"""Bits of whole numbers, against Python's own."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import samples
from test_ptx_integers import DTYPES, check


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_logic(bits):
    dtype = f"u{bits // 8}"
    a, b = samples(13, dtype, 60, 2)
    check(f"and.b{bits} %d, %a, %b;", lambda a, b: a & b, [a, b], dtype)
    check(f"or.b{bits} %d, %a, %b;", lambda a, b: a | b, [a, b], dtype)
    check(f"xor.b{bits} %d, %a, %b;", lambda a, b: a ^ b, [a, b], dtype)
    check(f"not.b{bits} %d, %a;", lambda a: ~a, [a], dtype)
    check(f"cnot.b{bits} %d, %a;", lambda a: int(a == 0), [a], dtype)


@pytest.mark.parametrize("kind", ["b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64"])
def test_shifts_by_the_width_or_more_leave_nothing(kind):
    bits = int(kind[1:])
    dtype = f"{'i' if kind[0] == 's' else 'u'}{bits // 8}"
    (a,) = samples(14, dtype, 90, 1)
    amounts = np.resize(np.array([0, 1, 5, bits - 1, bits, bits + 1, 255, 65536 + 1, 2**32 - 1], "u4"), len(a))
    if kind[0] == "b":
        check(f"shl.{kind} %d, %a, %b;", lambda a, b: a << min(b, bits), [a, amounts], dtype)
    check(f"shr.{kind} %d, %a, %b;", lambda a, b: a >> min(b, bits), [a, amounts], dtype)
    for amount in (0, 3, bits, 2**31):
        check(f"shr.{kind} %d, %a, {amount};", lambda a, n=amount: a >> min(n, bits), [a], dtype)


def test_funnel_shifts():
    a, b = samples(15, "u4", 60, 2)
    amounts = np.resize(np.array([0, 1, 13, 31, 32, 33, 63, 200], "u4"), len(a))
    arrays = [a, b, amounts]
    check("shf.l.wrap.b32 %d, %a, %b, %c;", lambda a, b, n: ((b << 32 | a) << (n & 31)) >> 32, arrays, "u4")
    check("shf.r.wrap.b32 %d, %a, %b, %c;", lambda a, b, n: (b << 32 | a) >> (n & 31), arrays, "u4")
    check("shf.l.clamp.b32 %d, %a, %b, %c;", lambda a, b, n: ((b << 32 | a) << min(n, 32)) >> 32, arrays, "u4")
    check("shf.r.clamp.b32 %d, %a, %b, %c;", lambda a, b, n: (b << 32 | a) >> min(n, 32), arrays, "u4")


def test_bytes_are_chosen():
    a, b = samples(16, "u4", 60, 2)
    (control,) = samples(17, "u4", len(a), 1)
    control = control[: len(a)]

    def chosen(a, b, c):
        data = (b << 32 | a).to_bytes(8, "little")
        found = 0
        for n in range(4):
            digit = c >> 4 * n & 15
            byte = data[digit & 7]
            found |= ((0xFF if byte & 0x80 else 0) if digit & 8 else byte) << 8 * n
        return found

    check("prmt.b32 %d, %a, %b, %c;", chosen, [a, b, control], "u4")
    for known in (0x5410, 0x7632, 0x1054, 0x7610, 0x2345, 0x3340, 0x0BA8):
        check(f"prmt.b32 %d, %a, %b, {known};", lambda a, b, c=known: chosen(a, b, c), [a, b], "u4")
    check("prmt.b32.f4e %d, %a, %b, %c;", lambda a, b, c: (b << 32 | a) >> 8 * (c & 3), [a, b, control], "u4")
    check("prmt.b32.rc8 %d, %a, %b, %c;", lambda a, b, c: (a >> 8 * (c & 3) & 255) * 0x01010101, [a, b, control], "u4")


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_bit_fields(kind):
    dtype, bits = DTYPES[kind], int(kind[1:])
    (a,) = samples(18, dtype, 300, 1)
    rng = np.random.default_rng(19)
    start, length = (rng.integers(0, bits + 3, len(a)).astype("u4") for _ in range(2))

    def extracted(a, start, length):
        """The definition of NVIDIA's manual, bit for bit."""
        top = min(start + length - 1, bits - 1)
        sign = 0 if kind[0] == "u" or length == 0 else a >> top & 1
        found = 0
        for place in range(bits):
            inside = place < length and start + place < bits
            found |= (a >> (start + place) & 1 if inside else sign) << place
        return found

    check(f"bfe.{kind} %d, %a, %b, %c;", extracted, [a, start, length], dtype)
    if kind[0] == "u":
        (b,) = samples(20, dtype, 300, 1)

        def inserted(a, b, start, length):
            for place in range(min(length, bits - start)):
                b = b & ~(1 << start + place) | (a >> place & 1) << start + place
            return b

        check(f"bfi.b{bits} %d, %a, %b, %c, %e;", inserted, [a, b, start, length], dtype)


@pytest.mark.parametrize("bits", [32, 64])
def test_counts_of_bits(bits):
    (a,) = samples(21, f"u{bits // 8}", 90, 1)
    check(f"popc.b{bits} %d, %a;", int.bit_count, [a], "u4")
    check(f"clz.b{bits} %d, %a;", lambda a: bits - a.bit_length(), [a], "u4")
    check(f"brev.b{bits} %d, %a;", lambda a: int(f"{a:0{bits}b}"[::-1], 2), [a], f"u{bits // 8}")
    check(f"bfind.u{bits} %d, %a;", lambda a: a.bit_length() - 1, [a], "u4")
    check(f"bfind.shiftamt.u{bits} %d, %a;", lambda a: bits - a.bit_length() if a else -1, [a], "u4")
    signed = a.view(f"i{bits // 8}")
    check(f"bfind.s{bits} %d, %a;", lambda a: (~a if a < 0 else a).bit_length() - 1, [signed], "u4")


def test_any_function_of_three_bits():
    a, b, c = samples(22, "u4", 60, 3)
    for table in (0x80, 0xFE, 0x96, 0xCA, 0x1D):

        def looked_up(a, b, c, table=table):
            rows = [(a >> n & 1) << 2 | (b >> n & 1) << 1 | (c >> n & 1) for n in range(32)]
            return sum((table >> row & 1) << n for n, row in enumerate(rows))

        check(f"lop3.b32 %d, %a, %b, %c, {table};", looked_up, [a, b, c], "u4")


@pytest.mark.parametrize("first", ["u32", "s32"])
@pytest.mark.parametrize("second", ["u32", "s32"])
def test_dot_products_of_bytes(first, second):
    a, b, c = samples(23, "u4", 60, 3)

    def parts(value, kind, bits):
        values = [value >> n & ((1 << bits) - 1) for n in range(0, 32, bits)]
        return [v - (1 << bits) if kind[0] == "s" and v >> (bits - 1) else v for v in values]

    def dot4(a, b, c):
        return sum(x * y for x, y in zip(parts(a, first, 8), parts(b, second, 8), strict=True)) + c

    def dot2(a, b, c):
        return sum(x * y for x, y in zip(parts(a, first, 16), parts(b, second, 8)[2:], strict=True)) + c

    check(f"dp4a.{first}.{second} %d, %a, %b, %c;", dot4, [a, b, c], "u4")
    check(f"dp2a.hi.{first}.{second} %d, %a, %b, %c;", dot2, [a, b, c], "u4")
