"""Register tiles over quantized weights and keys: integer dot products, scaled and summed in float32.

A tile multiplies rows of quantized activations by one block of 16 outputs. The integer sums are exact, and each output
adds its groups in their order to one float32 accumulator, so that a row's bits are the same in every tile. Four bytes
of weights times four of activations, added to an int32 lane, are one instruction with AVX-512 VNNI, three with AVX2,
and a handful elsewhere. ARM has tiles of its own, see ``_quarters``.

Where the products are one instruction, what a tile of one block waits for is reading: each of a row's numbers comes
from memory for sixteen products of four. A tile of two blocks reads it once for both, see ``paired_tile``.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK, EXPONENT, FORMATS, GROUP, PAIR, RECORD, START, Format
from pio.kernels._jit import PerDtype
from pio.kernels._llvm import at as _at
from pio.kernels._processor import DOT as DOT
from pio.kernels._quartered_tile import QuarteredTile
from pio.kernels._quarters import ARM, joined, pieces
from pio.kernels.simd import fma, int64, load_f16_lanes, primitive, splat, store_part_f32, void

Tile = Callable[..., None]

I8X64, I16X32 = ir.VectorType(ll.I8, 64), ir.VectorType(ll.I16, 32)
I8X32, I16X16, I32X8 = ir.VectorType(ll.I8, 32), ir.VectorType(ll.I16, 16), ir.VectorType(ll.I32, 8)

AHEAD: Final = 12  # pairs between the one that is computed and the one that is asked for
PAIRED: Final = DOT == "vnni"  # whether tiles of two blocks are faster: they need thirty-two registers


def _dot_vnni(b: Any, acc: Any, w: Any, x: Any, bits: int) -> Any:
    # as LLVM declared it before it took bytes; later versions understand that too
    vpdpbusd = ll.function(b, "llvm.x86.avx512.vpdpbusd.512", ll.I32X16, [ll.I32X16] * 3)
    return b.call(vpdpbusd, [acc, b.bitcast(w, ll.I32X16), b.bitcast(x, ll.I32X16)])


def _dot_avx2(b: Any, acc: Any, w: Any, x: Any, bits: int) -> Any:
    """Sixteen-bit products by the pair: of bytes where these cannot overflow, else of even and of odd bytes."""
    madd = ll.function(b, "llvm.x86.avx2.pmadd.wd", I32X8, [I16X16, I16X16])
    maddubs = ll.function(b, "llvm.x86.avx2.pmadd.ub.sw", I16X16, [I8X32, I8X32])
    sums: list[Any] = []
    for wi, xi in zip(pieces(b, w, 2), pieces(b, x, 2), strict=True):
        if bits == 4:
            sums.append(b.call(madd, [b.call(maddubs, [wi, xi]), ir.Constant(I16X16, [1] * 16)]))
            continue
        wide, signed, eight = b.bitcast(wi, I16X16), b.bitcast(xi, I16X16), ir.Constant(I16X16, [8] * 16)
        even = b.call(madd, [b.and_(wide, ir.Constant(I16X16, [255] * 16)), b.ashr(b.shl(signed, eight), eight)])
        sums.append(b.add(even, b.call(madd, [b.lshr(wide, eight), b.ashr(signed, eight)])))
    return b.add(acc, joined(b, sums))


def _dot_portable(b: Any, acc: Any, w: Any, x: Any, bits: int) -> Any:
    """Byte by byte of each lane."""
    w, x = b.bitcast(w, ll.I32X16), b.bitcast(x, ll.I32X16)
    for j in range(4):
        low = b.and_(b.lshr(w, _i32(8 * j)), _i32(255))
        signed = b.ashr(b.shl(x, _i32(24 - 8 * j)), _i32(24))
        acc = b.add(acc, b.mul(low, signed))
    return acc


def _i32(value: int) -> Any:
    return ir.Constant(ll.I32X16, [value] * 16)


DOTS: Final = {"vnni": _dot_vnni, "avx2": _dot_avx2, "portable": _dot_portable}  # sixteen outputs at once


@cache
def quantized_tile(rows: int, dot: str = DOT, ahead: bool = True) -> PerDtype[Tile]:
    """Return the tile ``y[r, o] (+)= sum_k x[r, k] * w[o, k]`` for fixed rows and one block of outputs, by format of w.

    The tile takes ``(y, x, w, pairs, ldy, count, add)``: addresses of the output, of quantized activations and of a
    block of weights, pairs of groups, row stride of y in elements, how many of the 16 outputs are there, and whether
    the old y is added (0 or 1). y is float32. Memory behind w is asked for ``ahead``, as blocks of a matrix follow one
    another.
    """
    return PerDtype(lambda name: _quantized_tile(rows, FORMATS[name], dot, ahead))


@cache
def paired_tile(rows: int, dot: str = DOT, level: int = 2) -> PerDtype[Tile]:
    """Return the tile of ``quantized_tile`` for two blocks of outputs that lie one behind the other.

    It takes ``(y, x, w, pairs, ldy, count, add, ahead, share)``: as there, of 16 < count <= 32 outputs. While it
    computes a pair of groups, it asks for the next ``share`` bytes from ``ahead`` on, 0 for none, to be in the cache of
    that level. Not for ARM.
    """
    return PerDtype(lambda name: _paired_tile(rows, FORMATS[name], dot, level))


def unpacked(b: Any, at: Any, bits: int) -> list[Any]:
    """Sixteen outputs' next stored numbers, four inputs a vector: two vectors of nibbles or one of bytes."""
    raw = ll.load(b, at, I8X64, 1)
    if bits == 8:
        return [raw]
    low = ir.Constant(I8X64, [15] * 64)
    high = b.bitcast(b.lshr(b.bitcast(raw, I16X32), ir.Constant(I16X32, [4] * 32)), I8X64)
    return [b.and_(raw, low), b.and_(high, low)]


class _WholeTile:
    """A tile of some rows: all sixteen outputs at once."""

    def __init__(self, rows: int, form: Format, dot: str) -> None:
        self._rows, self._form, self._product = rows, form, DOTS[dot]

    def begin(self, b: Any, starts: list[Any]) -> list[Any]:
        """Places of each row's sums, which hold what it starts with."""
        return [cgutils.alloca_once_value(b, ll.splat(b, start)) for start in starts]

    def places(self, b: Any, totals: list[Any]) -> list[Any]:
        """Places of each row's sums."""
        return totals

    def add_group(self, b: Any, g: int, x: list[Any], w: Any, totals: list[Any]) -> None:
        """Add one group of a pair to the totals."""
        _add_group(b, self._form, self._product, g, x, [w], [totals])


def _add_group(
    b: Any, form: Format, product: Callable[..., Any], g: int, x: list[Any], w: list[Any], totals: list[list[Any]]
) -> None:
    """Add one group of a pair to the totals, which are places by block and row."""
    offsets, start = PAIR + 8 + 4 * g, [ir.Constant(ll.I32X16, [0] * 16)] * len(x)
    if not form.minima:
        start = [_every_lane(b, row, offsets, ll.I32) for row in x]
    parts = [[*start] for _ in w]
    for q in range(form.group_bytes // 64):
        at = form.header_bytes + g * form.group_bytes + 64 * q
        vectors = [unpacked(b, _at(b, block, (at, 1)), form.bits) for block in w]
        for i, beside in enumerate(zip(*vectors, strict=True)):
            inputs = GROUP * g + 4 * (q * len(vectors[0]) + i)
            for r, row in enumerate(x):
                four = b.bitcast(_every_lane(b, row, inputs, ll.I32), I8X64)
                for part, vector in zip(parts, beside, strict=True):
                    part[r] = product(b, part[r], vector, four, form.bits)
    scales = [ll.load_as(b, _at(b, block, (2 * BLOCK * g, 1)), "float16") for block in w]
    least = [ll.load_as(b, _at(b, block, (2 * BLOCK * (2 + g), 1)), "float16") for block in w if form.minima]
    for r, row in enumerate(x):
        exponent = _every_lane(b, row, PAIR + 4 * g, ll.I32)
        for j, scale in enumerate(scales):
            factor = b.bitcast(b.add(b.bitcast(scale, ll.I32X16), exponent), ll.F32X16)
            value = ll.fma(b, b.sitofp(parts[j][r], ll.F32X16), factor, b.load(totals[j][r]))
            if form.minima:
                value = ll.fma(b, least[j], _every_lane(b, row, offsets, ll.F32), value)
            b.store(value, totals[j][r])


def _every_lane(b: Any, row: Any, offset: int, ty: Any) -> Any:
    """What lies so many bytes behind an address, in all lanes."""
    return ll.splat(b, ll.load(b, _at(b, row, (offset, 1)), ty, 4))


def _quantized_tile(rows: int, form: Format, dot: str, ahead: bool) -> Tile:
    kind = (QuarteredTile if dot in ARM else _WholeTile)(rows, form, dot)

    def emit(b: Any, y: Any, x: Any, w: Any, pairs: Any, ldy: Any, count: Any, add: Any) -> None:
        stride = b.add(b.mul(pairs, ll.i64_const(RECORD)), ll.i64_const(START))
        begin = [ll.own(b, _at(b, x, (stride, r))) for r in range(rows)]
        sums = kind.begin(b, [ll.load(b, row, ll.F32, 4) for row in begin])
        with cgutils.for_range(b, pairs, intp=ll.I64) as loop:
            at_x = [_at(b, row, (START, 1), (loop.index, RECORD)) for row in begin]
            at_w = _at(b, w, (loop.index, form.pair_bytes))
            if ahead and rows > 1:  # one row alone runs so fast that its own loads reach far enough ahead
                for line in range(0, form.pair_bytes, ll.LINE):
                    ll.prefetch(b, _at(b, at_w, (form.pair_bytes * AHEAD + line, 1)))
            for g in range(2):
                kind.add_group(b, g, at_x, at_w, sums)
        _put(b, kind.places(b, sums), y, ldy, count, add)

    @primitive(void, *[int64] * 7, emit=emit)
    def tile(y: int, x: int, w: int, pairs: int, ldy: int, count: int, add: int) -> None:
        for r in range(rows):
            row = x + r * (START + pairs * RECORD)
            sums = splat(ctypes.c_float.from_address(row).value)
            for p in range(pairs):
                record, pair = row + START + p * RECORD, w + p * form.pair_bytes
                for g in range(2):
                    sums = group_python(form, record, pair, g, sums)
            place = y + 4 * r * ldy
            if add:
                old = (ctypes.c_float * count).from_address(place)
                sums = sums + type(sums)([*old, *[0.0] * (BLOCK - count)])
            store_part_f32(place, sums, count)

    return tile


def _paired_tile(rows: int, form: Format, dot: str, level: int) -> Tile:
    one = _quantized_tile(1, form, dot, False)

    def emit(
        b: Any, y: Any, x: Any, w: Any, pairs: Any, ldy: Any, count: Any, add: Any, ahead: Any, share: Any
    ) -> None:
        stride = b.add(b.mul(pairs, ll.i64_const(RECORD)), ll.i64_const(START))
        begin = [ll.own(b, _at(b, x, (stride, r))) for r in range(rows)]
        blocks = [w, ll.own(b, _at(b, w, (pairs, form.pair_bytes)))]
        starts = [ll.splat(b, ll.load(b, row, ll.F32, 4)) for row in begin]
        sums = [[cgutils.alloca_once_value(b, start) for start in starts] for _ in blocks]
        with cgutils.for_range(b, pairs, intp=ll.I64) as loop:
            at_x = [_at(b, row, (START, 1), (loop.index, RECORD)) for row in begin]
            at_w = [_at(b, block, (loop.index, form.pair_bytes)) for block in blocks]
            first = b.add(ahead, b.mul(loop.index, share))
            with cgutils.for_range_slice(b, ll.i64_const(0), share, ll.i64_const(ll.LINE), ll.I64) as (at, _):
                ll.prefetch(b, b.add(first, at), level)
            for g in range(2):
                _add_group(b, form, DOTS[dot], g, at_x, at_w, sums)
        _put(b, sums[0], y, ldy, ll.i64_const(BLOCK), add)
        _put(b, sums[1], _at(b, y, (4 * BLOCK, 1)), ldy, b.sub(count, ll.i64_const(BLOCK)), add)

    @primitive(void, *[int64] * 9, emit=emit)
    def tile(y: int, x: int, w: int, pairs: int, ldy: int, count: int, add: int, ahead: int, share: int) -> None:
        for r in range(rows):
            row, place = x + r * (START + pairs * RECORD), y + 4 * r * ldy
            one(place, row, w, pairs, ldy, BLOCK, add)
            one(place + 4 * BLOCK, row, w + pairs * form.pair_bytes, pairs, ldy, count - BLOCK, add)

    return tile


def _put(b: Any, totals: list[Any], y: Any, ldy: Any, count: Any, add: Any) -> None:
    """Write each row's sums, or add them to what is there."""
    places = [_at(b, y, (ldy, 4 * r)) for r in range(len(totals))]
    with b.if_else(b.icmp_signed("==", count, ll.i64_const(BLOCK)), likely=True) as (whole, some):
        with whole:
            keeps = b.icmp_signed("!=", add, ll.i64_const(0))
            for place, sums in zip(places, totals, strict=True):
                with b.if_then(keeps):
                    b.store(b.fadd(b.load(sums), ll.load_as(b, place, "float32")), sums)
                ll.store(b, place, b.load(sums), 4)
        with some:
            keeps = b.icmp_signed("!=", add, ll.i64_const(0))
            for place, sums in zip(places, totals, strict=True):
                with b.if_then(keeps):
                    b.store(b.fadd(b.load(sums), ll.load_part_as(b, place, count, "float32")), sums)
                ll.store_part_as(b, place, b.load(sums), count, "float32")


def group_python(form: Format, record: int, pair: int, g: int, sums: Any) -> Any:
    """One group of one row, lane by lane."""
    x = (ctypes.c_int8 * GROUP).from_address(record + GROUP * g)
    w = (ctypes.c_uint8 * form.group_bytes).from_address(pair + form.header_bytes + g * form.group_bytes)
    dots: list[float] = []
    for o in range(BLOCK):
        if form.bits == 8:
            row = [w[64 * (i // 4) + 4 * o + i % 4] for i in range(GROUP)]
        else:
            row = [w[64 * (i // 8) + 4 * o + i % 4] >> (4 if i % 8 > 3 else 0) & 15 for i in range(GROUP)]
        dots.append(float(sum(a * c for a, c in zip(x, row, strict=True)) - form.offset * sum(x)))
    exponent = ctypes.c_int32.from_address(record + PAIR + 4 * g).value >> EXPONENT
    factor = load_f16_lanes(pair + 2 * BLOCK * g) * splat(math.ldexp(1.0, exponent))
    sums = fma(type(sums)(dots), factor, sums)
    if form.minima:
        shift = ctypes.c_float.from_address(record + PAIR + 8 + 4 * g).value
        sums = fma(load_f16_lanes(pair + 2 * BLOCK * (2 + g)), splat(shift), sums)
    return sums
