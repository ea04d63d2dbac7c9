"""and, or, xor, not, shifts, prmt, bit fields, counts, lop3, dot products of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..decoder import Decoder, Step, operation
from ..operands import Immediate
from ..types import Type

Array = np.ndarray[Any, Any]


def _logic(ufunc: np.ufunc, boolean: np.ufunc) -> Callable[[Decoder], Step]:
    def decode(d: Decoder) -> Step:
        d.need(ufunc.nin + 1)
        kind = d.take_type("pred", "b16", "b32", "b64")
        chosen = boolean if kind.kind == "pred" else ufunc
        return d.elementwise(chosen, d.target(0, kind.dtype), *[d.source(n + 1, kind.dtype) for n in range(ufunc.nin)])

    return decode


operation("and")(_logic(np.bitwise_and, np.logical_and))
operation("or")(_logic(np.bitwise_or, np.logical_or))
operation("xor")(_logic(np.bitwise_xor, np.logical_xor))
operation("not")(_logic(np.invert, np.logical_not))


@operation("cnot")
def cnot(d: Decoder) -> Step:
    d.need(2)
    kind = d.take_type("b16", "b32", "b64")
    return d.computed(lambda x: x == 0, d.target(0, kind.dtype), d.source(1, kind.dtype))


@operation("shl", "shr")
def shift(d: Decoder) -> Step:
    """Decode a shift; one by the width or more leaves nothing, or the sign."""
    d.need(3)
    kind = d.take_type()
    if d.name == "shl" and kind.kind != "b":
        raise d.unknown()
    ufunc = np.left_shift if d.name == "shl" else np.right_shift
    target, a = d.target(0, kind.dtype), d.source(1, kind.dtype)
    amount = d.literal(2)
    most = 8 * kind.nbytes
    if amount is not None:
        if amount < most:
            return d.elementwise(ufunc, target, a, d.program.registers.constant(Immediate(amount), kind.dtype))
        last = np.array(most - 1, kind.dtype)
        beyond = (lambda x: x >> last) if kind.is_signed else (lambda x: x & 0)
        return d.computed(beyond, target, a)
    b, limit = d.source(2, "u4"), np.array(most, "u4")
    return d.computed(lambda x, n: ufunc(x, np.minimum(n, limit).astype(kind.dtype)), target, a, b)


@operation("shf")
def funnel(d: Decoder) -> Step:
    """Decode a shift of two registers seen as one."""
    d.need(4)
    left, mode = d.take("l", "r"), d.take("clamp", "wrap")
    d.take_type("b32")
    if not left or not mode:
        raise d.unknown()

    def function(low: Array, high: Array, amount: Array) -> Array:
        n = (np.minimum(amount, 32) if mode == "clamp" else amount & 31).astype("u8")
        both = high.astype("u8") << np.uint64(32) | low
        return (both << n >> np.uint64(32) if left == "l" else both >> n).astype("u4")

    return d.computed(function, d.target(0, "u4"), *[d.source(n, "u4") for n in (1, 2, 3)])


_MODES = {
    "f4e": lambda n: [(n + k) % 8 for k in range(4)],
    "b4e": lambda n: [(n - k) % 8 for k in range(4)],
    "rc8": lambda n: [n] * 4,
    "ecl": lambda n: [max(k, n) for k in range(4)],
    "ecr": lambda n: [min(k, n) for k in range(4)],
    "rc16": lambda n: [0, 1, 0, 1] if n % 2 == 0 else [2, 3, 2, 3],
}


@operation("prmt")
def permute(d: Decoder) -> Step:
    """Decode a choice of four of eight bytes."""
    d.need(4)
    d.take_type("b32")
    mode = d.take(*_MODES)
    table = np.array([_MODES[mode](n) for n in range(4)], "u4") if mode else None
    control = d.literal(3)
    if control is not None and not mode and not control & 0x8888:
        return d.computed(_chosen(control), d.target(0, "u4"), d.source(1, "u4"), d.source(2, "u4"))

    def function(a: Array, b: Array, control: Array) -> Array:
        both = (b.astype("u8") << np.uint64(32) | a).view("u1").reshape(-1, 8)
        if table is not None:
            return np.take_along_axis(both, table[control & 3].astype("i8"), axis=1).reshape(-1).view("u4")
        digits = control[:, None] >> np.array([0, 4, 8, 12], "u4")
        chosen = np.take_along_axis(both, (digits & 7).astype("i8"), axis=1)
        signs = np.where(chosen & 0x80, np.uint8(0xFF), np.uint8(0))
        return np.ascontiguousarray(np.where(digits & 8, signs, chosen)).reshape(-1).view("u4")

    return d.computed(function, d.target(0, "u4"), *[d.source(n, "u4") for n in (1, 2, 3)])


def _chosen(control: int) -> Callable[[Array, Array], Array]:
    """Return a choice of bytes that is known before, none of them a sign; two that stay side by side go together."""
    digits = [control >> 4 * n & 7 for n in range(4)]
    pairs = all(low % 2 == 0 and high == low + 1 for low, high in (digits[:2], digits[2:]))
    part, places = ("u2", [digits[0] // 2, digits[2] // 2]) if pairs else ("u1", digits)
    count = len(places)

    def function(a: Array, b: Array) -> Array:
        found = np.empty((len(a), count), part)
        for n, place in enumerate(places):
            found[:, n] = (a if place < count else b).view(part)[place % count :: count]
        return found.view("u4")[:, 0]

    return function


@operation("bfe")
def extract(d: Decoder) -> Step:
    """Decode the extraction of a bit field; a signed one is extended by its upper bit."""
    d.need(4)
    kind = d.take_type("u32", "s32", "u64", "s64")
    width, unsigned = 8 * kind.nbytes, f"u{kind.nbytes}"

    def function(a: Array, b: Array, c: Array) -> Array:
        start, length = (b & 0xFF).astype("i8"), (c & 0xFF).astype("i8")
        top = np.minimum(start + length - 1, width - 1)
        places = np.minimum(start, width).astype(unsigned)
        field = a >> places & _ones(np.minimum(length, width), unsigned)
        if not kind.is_signed:
            return np.where(length == 0, 0, field).astype(unsigned)
        sign = (a >> top.clip(0).astype(unsigned) & 1).astype("?") & (length > 0)
        known = np.clip(top - start + 1, 0, width)
        return np.where(sign, field | ~_ones(known, unsigned), np.where(length == 0, 0, field)).astype(unsigned)

    return d.computed(function, d.target(0, unsigned), d.source(1, unsigned), d.source(2, "u4"), d.source(3, "u4"))


def _ones(length: Array, dtype: str) -> Array:
    """Return masks of so many low bits."""
    one = np.array(1, dtype)
    return (one << length.astype(dtype)) - one  # a shift by the width leaves nothing


@operation("bfi")
def insert(d: Decoder) -> Step:
    d.need(5)
    kind = d.take_type("b32", "b64")
    width, unsigned = 8 * kind.nbytes, kind.dtype

    def function(a: Array, b: Array, c: Array, e: Array) -> Array:
        start, length = np.minimum(c & 0xFF, width).astype(unsigned), np.minimum(e & 0xFF, width)
        mask = _ones(length, unsigned) << start
        return (b & ~mask) | (a << start & mask)

    sources = (d.source(1, unsigned), d.source(2, unsigned), d.source(3, "u4"), d.source(4, "u4"))
    return d.computed(function, d.target(0, unsigned), *sources)


@operation("bmsk")
def mask(d: Decoder) -> Step:
    d.need(3)
    d.take_type("b32")
    wraps = d.take("clamp", "wrap")
    if not wraps:
        raise d.unknown()

    def function(a: Array, b: Array) -> Array:
        start, length = (a & 31, b & 31) if wraps == "wrap" else (np.minimum(a, 32), np.minimum(b, 32))
        return _ones(length, "u4") << start

    return d.computed(function, d.target(0, "u4"), d.source(1, "u4"), d.source(2, "u4"))


@operation("brev")
def reverse(d: Decoder) -> Step:
    d.need(2)
    kind = d.take_type("b32", "b64")
    table = np.array([int(f"{n:08b}"[::-1], 2) for n in range(256)], "u1")

    def function(a: Array) -> Array:
        return table[a.byteswap().view("u1")].view(kind.dtype)

    return d.computed(function, d.target(0, kind.dtype), d.source(1, kind.dtype))


def _length(a: Array) -> Array:
    """Return the numbers of bits up to the upper one (unsigned integers)."""
    low = np.frexp((a & np.array(0xFFFFFFFF, a.dtype)).astype("f8"))[1]
    if a.dtype.itemsize < 8:
        return low
    upper = (a >> np.uint64(32)).astype("f8")
    return np.where(upper != 0, np.frexp(upper)[1] + 32, low)


@operation("popc")
def count(d: Decoder) -> Step:
    d.need(2)
    kind = d.take_type("b32", "b64")
    return d.computed(np.bitwise_count, d.target(0, "u4"), d.source(1, kind.dtype))


@operation("clz")
def leading_zeros(d: Decoder) -> Step:
    d.need(2)
    kind = d.take_type("b32", "b64")
    return d.computed(lambda a: 8 * kind.nbytes - _length(a), d.target(0, "u4"), d.source(1, kind.dtype))


@operation("bfind")
def find_upper(d: Decoder) -> Step:
    """Decode the search for the upper bit that is not the sign."""
    d.need(2)
    kind = d.take_type("u32", "s32", "u64", "s64")
    distance = bool(d.take("shiftamt"))
    unsigned, width = f"u{kind.nbytes}", 8 * kind.nbytes

    def function(a: Array) -> Array:
        value = np.where(a < 0, ~a, a).view(unsigned) if kind.is_signed else a
        place = _length(value) - 1
        return np.where(place < 0, -1, width - 1 - place if distance else place).astype("i4")

    return d.computed(function, d.target(0, "i4"), d.source(1, kind.dtype))


@operation("fns")
def find_set(d: Decoder) -> Step:
    """Decode the search for the n-th bit that is set, from a base upward (n > 0) or downward."""
    d.need(4)
    d.take_type("b32")

    def one(value: int, base: int, n: int) -> int:
        places = range(base, 32) if n >= 0 else range(base, -1, -1)
        found = [place for place in places if value >> place & 1]
        if n == 0:
            return base if value >> base & 1 else 0xFFFFFFFF
        return found[abs(n) - 1] if len(found) >= abs(n) else 0xFFFFFFFF

    def function(a: Array, b: Array, n: Array) -> Array:
        return np.array([one(*row) for row in zip(a.tolist(), (b & 31).tolist(), n.tolist(), strict=True)], "u4")

    return d.computed(function, d.target(0, "u4"), d.source(1, "u4"), d.source(2, "u4"), d.source(3, "i4"))


@operation("lop3")
def logic(d: Decoder) -> Step:
    """Decode any function of three bits, given by its table."""
    d.need(5)
    d.take_type("b32")
    table = d.literal(4)
    if table is None:
        raise d.unknown()

    def function(a: Array, b: Array, c: Array) -> Array:
        found = np.zeros_like(a)
        for row in range(8):
            if table >> row & 1:
                found |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return found

    return d.computed(function, d.target(0, "u4"), *[d.source(n, "u4") for n in (1, 2, 3)])


@operation("dp4a", "dp2a")
def dot(d: Decoder) -> Step:
    """Decode a dot product of four bytes (dp4a), or of two words with two of four bytes (dp2a)."""
    d.need(4)
    part = d.take("lo", "hi") if d.name == "dp2a" else ""
    first, second = d.take_type("u32", "s32"), d.take_type("u32", "s32")
    result = "s4" if first.is_signed or second.is_signed else "u4"
    if d.name == "dp2a" and not part:
        raise d.unknown()

    def split(x: Array, kind: Type, nbytes: int) -> Array:
        return x.view(f"{kind.dtype[0]}{nbytes}").reshape(len(x), -1).astype("i8")

    def function(a: Array, b: Array, c: Array) -> Array:
        y = split(b, second, 1)
        x = split(a, first, 1 if d.name == "dp4a" else 2)
        if part:
            y = y[:, :2] if part == "lo" else y[:, 2:]
        return ((x * y).sum(axis=1) + c).astype("u4")

    dtype = "i4" if result == "s4" else "u4"
    target, c = d.target(0, dtype), d.source(3, dtype)
    inner = lambda a, b, c: function(a, b, c).view(dtype)  # noqa: E731
    return d.computed(inner, target, d.source(1, "u4"), d.source(2, "u4"), c)
