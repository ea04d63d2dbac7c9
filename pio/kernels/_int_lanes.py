"""Sixteen int32 lanes: sums of products of bytes and weights with 22 bits behind the point, and what rounds them."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUntypedClassDecorator=false
from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.datamodel.registry import register_default

from pio.kernels import _llvm as ll
from pio.kernels.simd import LANES, int64, primitive, void
from pio.kernels.sizes import PIXELS

POINT: Final = 22  # bits behind the point: a byte times a weight below two still fits, with its sign
HALF: Final = 1 << POINT - 1

_BYTES: Final = ir.VectorType(ll.I8, LANES)
_FOUR: Final = ir.VectorType(ll.I32, 4)


class IntVec(tuple[int, ...]):
    """Sixteen int32 lanes; this class is what kernels see where the JIT is disabled."""


class _IntVecType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="I32x16")


INT_VEC: Final = _IntVecType()


@register_default(_IntVecType)
class _IntVecModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ll.I32X16)


def _wrapped(values: Iterable[int]) -> IntVec:
    return IntVec(ctypes.c_int32(value).value for value in values)


def _byte(total: int) -> int:
    return min(max(total >> POINT, 0), 255)


def _emit_bytes(b: Any, totals: Any, kind: Any) -> Any:
    """Sums -> bytes: without the bits behind the point, clipped."""
    low, high = (ir.Constant(kind, [v] * kind.count) for v in (0, 255))
    value = b.ashr(totals, ir.Constant(kind, [POINT] * kind.count))
    value = b.select(b.icmp_signed(">", value, low), value, low)
    value = b.select(b.icmp_signed("<", value, high), value, high)
    return b.trunc(value, ir.VectorType(ll.I8, kind.count))


@primitive(INT_VEC, int64, emit=lambda b, x: ll.splat(b, b.trunc(x, ll.I32)))
def splat_i32(x: int) -> IntVec:
    """Sixteen times x."""
    return _wrapped([x] * LANES)


@primitive(INT_VEC, int64, emit=lambda b, address: ll.load(b, address, ll.I32X16, 4))
def load_i32(address: int) -> IntVec:
    """Read sixteen int32 at an address."""
    return IntVec((ctypes.c_int32 * LANES).from_address(address))


@primitive(INT_VEC, int64, emit=lambda b, address: b.zext(ll.load(b, address, _BYTES, 1), ll.I32X16))
def load_u8(address: int) -> IntVec:
    """Read sixteen bytes at an address."""
    return IntVec(ctypes.string_at(address, LANES))


@primitive(INT_VEC, int64, int64, emit=lambda b, address, n: b.zext(ll.load_bytes(b, address, n, _BYTES), ll.I32X16))
def load_part_u8(address: int, n: int) -> IntVec:
    """Read n <= 16 bytes at an address; the other lanes are zero."""
    return IntVec([*ctypes.string_at(address, n), *[0] * (LANES - n)])


@primitive(INT_VEC, INT_VEC, INT_VEC, INT_VEC, emit=lambda b, total, x, y: b.add(total, b.mul(x, y)))
def add_product(total: IntVec, x: IntVec, y: IntVec) -> IntVec:
    """Total + x * y."""
    return _wrapped(t + p * q for t, p, q in zip(total, x, y, strict=True))


@primitive(void, int64, INT_VEC, emit=lambda b, address, v: ll.store(b, address, _emit_bytes(b, v, ll.I32X16), 1))
def store_clipped(address: int, totals: IntVec) -> None:
    """Write sixteen sums to an address as bytes, cut behind the point."""
    ctypes.memmove(address, bytes(map(_byte, totals)), LANES)


def _emit_part(b: Any, address: Any, totals: Any, n: Any) -> None:
    buffer = cgutils.alloca_once(b, _BYTES)
    b.store(_emit_bytes(b, totals, ll.I32X16), buffer)
    raw = ir.PointerType(ll.I8)
    ll.copy(b, ll.pointer(b, address, ll.I8), b.bitcast(buffer, raw), n)


@primitive(void, int64, INT_VEC, int64, emit=_emit_part)
def store_part_clipped(address: int, totals: IntVec, n: int) -> None:
    """Write the first n <= 16 sums to an address as bytes, cut behind the point."""
    ctypes.memmove(address, bytes(map(_byte, totals[:n])), n)


def _emit_pixel(b: Any, address: Any, totals: Any) -> None:
    zeros = ir.Constant(ll.I32X16, [0] * LANES)
    upper = ir.Constant(ll.I32X16, [*range(9, 15), *[LANES] * 10])  # pixels 3 and 4, to be added to 0 and 1
    three = b.add(totals, b.shuffle_vector(totals, zeros, upper))
    parts = [b.shuffle_vector(three, zeros, ir.Constant(_FOUR, [p, p + 1, p + 2, LANES])) for p in (0, 3, 6)]
    total = b.add(b.add(parts[0], parts[1]), b.add(parts[2], ir.Constant(_FOUR, [HALF] * 4)))
    word = b.bitcast(_emit_bytes(b, total, _FOUR), ll.I32)
    ll.store(b, address, b.trunc(word, ll.I16), 1)
    ll.store(b, b.add(address, ll.i64_const(2)), b.trunc(b.lshr(word, ir.Constant(ll.I32, 16)), ll.I8), 1)


@primitive(void, int64, INT_VEC, emit=_emit_pixel)
def store_pixel(address: int, totals: IntVec) -> None:
    """Add five pixels of three lanes each, round, and write the three sums to an address as bytes."""
    sums = _wrapped(HALF + sum(totals[c : 3 * PIXELS : 3]) for c in range(3))
    ctypes.memmove(address, bytes(map(_byte, sums)), 3)
