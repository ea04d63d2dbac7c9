"""Register tiles that sum values, weighted by quantized probabilities: integer dot products over positions.

``values_tile`` takes one cache block, ``span_tile`` several, whose integer sums are made float32 once. Probabilities
are from 0 to 127 and a span has 128 positions, so that a sum is below 2^21: exact, also as float32. Where a product is
one instruction, two vectors of sums are walked together: each probability is read once for both.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._processor import DOT
from pio.kernels._quartered_values import emit_span, emit_values
from pio.kernels._quarters import ARM
from pio.kernels._rows import scale_row
from pio.kernels.quantized_tiles import DOTS, PAIRED
from pio.kernels.simd import get_i64, int64, primitive, void
from pio.kernels.sizes import BLOCK, CHANCE, SPAN, SPAN_CHANCE

ZEROS = ir.Constant(ll.I32X16, [0] * ll.LANES)
TOGETHER: Final = 2 if PAIRED else 1  # vectors of sums that are walked together


@cache
def values_tile(rows: int, dot: str = DOT) -> Callable[..., None]:
    """Return the tile ``acc[r, d] += scale[r] * sum_j p[r, j] * v[j, d]`` for fixed rows and one block of positions.

    The tile takes ``(acc, p, v, width)``: addresses of float32 (rows, width), of quantized probabilities, CHANCE bytes
    a row, and of values; width is a multiple of 16.
    """

    def emit(b: Any, acc: Any, p: Any, v: Any, width: Any) -> None:
        chances = [ll.at(b, p, (CHANCE, r)) for r in range(rows)]
        scales = _scales(b, chances, BLOCK)

        def walk(d: Any, vectors: int) -> None:
            sums = _add_products(b, DOTS[dot], [[ZEROS] * rows] * vectors, chances, v, width, d)
            _add_totals(b, acc, width, d, sums, scales)

        _for_vectors(b, width, walk)

    @primitive(void, *[int64] * 4, emit=partial(emit_values, rows, dot) if dot in ARM else emit)
    def tile(acc: int, p: int, v: int, width: int) -> None:
        for r in range(rows):
            add_row_python(acc + 4 * r * width, p + CHANCE * r, BLOCK, [v], width)

    return tile


@cache
def span_tile(rows: int, dot: str = DOT) -> Callable[..., None]:
    """Return the tile ``acc[r, d] = left[r] * acc[r, d] + scale[r] * sum_bj p[r, b, j] * v[b][j, d]`` for fixed rows.

    The tile takes ``(acc, p, addresses, blocks, width)``: addresses of float32 (rows, width), of quantized
    probabilities, SPAN_CHANCE bytes a row, behind them scale and left, and of int64 (blocks,), the addresses of each
    block's values; up to SPAN blocks.
    """

    def emit(b: Any, acc: Any, p: Any, addresses: Any, blocks: Any, width: Any) -> None:
        rows_at = [ll.at(b, p, (SPAN_CHANCE, r)) for r in range(rows)]
        scales, left = (_scales(b, rows_at, SPAN * BLOCK + 4 * i) for i in range(2))

        def walk(d: Any, vectors: int) -> None:
            places = [[cgutils.alloca_once(b, ll.I32X16) for _ in range(rows)] for _ in range(vectors)]
            for place in chain.from_iterable(places):
                b.store(ZEROS, place)
            with cgutils.for_range(b, blocks, intp=ll.I64) as loop:
                v = ll.load(b, ll.at(b, addresses, (loop.index, 8)), ll.I64, 8)
                chances = [ll.at(b, row, (loop.index, BLOCK)) for row in rows_at]
                sums = [[b.load(place) for place in beside] for beside in places]
                sums = _add_products(b, DOTS[dot], sums, chances, v, width, d)
                for place, total in zip(chain.from_iterable(places), chain.from_iterable(sums), strict=True):
                    b.store(total, place)
            _add_totals(b, acc, width, d, [[b.load(place) for place in beside] for beside in places], scales, left)

        _for_vectors(b, width, walk)

    @primitive(void, *[int64] * 5, emit=partial(emit_span, rows, dot) if dot in ARM else emit)
    def tile(acc: int, p: int, addresses: int, blocks: int, width: int) -> None:
        values = [get_i64(addresses + 8 * i) for i in range(blocks)]
        for r in range(rows):
            row, scales = acc + 4 * r * width, p + SPAN_CHANCE * r + SPAN * BLOCK
            scale_row(row, row, width, ctypes.c_float.from_address(scales + 4).value)
            add_row_python(row, p + SPAN_CHANCE * r, SPAN * BLOCK, values, width)

    return tile


def _scales(b: Any, chances: Sequence[Any], behind: int) -> list[Any]:
    """Each row's scale, which lies so many bytes behind its first probability, in all lanes."""
    return [ll.splat(b, ll.load(b, b.add(row, ll.i64_const(behind)), ll.F32, 4)) for row in chances]


def _for_vectors(b: Any, width: Any, walk: Callable[[Any, int], None]) -> None:
    """Emit ``walk(d, vectors)`` for all numbers from 0 to width: as many vectors at once as go together, then one."""
    done = ll.i64_const(0)
    for vectors in sorted({TOGETHER, 1}, reverse=True):
        step = vectors * ll.LANES
        end = b.mul(b.sdiv(width, ll.i64_const(step)), ll.i64_const(step))
        with cgutils.for_range_slice(b, done, end, ll.i64_const(step), ll.I64) as (d, _):
            walk(d, vectors)
        done = end


def _add_products(
    b: Any,
    product: Callable[..., Any],
    sums: Sequence[Sequence[Any]],
    chances: Sequence[Any],
    v: Any,
    width: Any,
    d: Any,
) -> list[list[Any]]:
    """Add a block's products to int32 sums of the numbers from d on, by vector of sixteen and row."""
    sums = [[*beside] for beside in sums]
    for four in range(BLOCK // 4):
        values = [
            ll.load(b, ll.at(b, v, (width, 4 * four), (d, 4), (4 * ll.LANES, i)), ir.VectorType(ll.I8, 4 * ll.LANES), 1)
            for i in range(len(sums))
        ]
        for r, row in enumerate(chances):
            p = ll.splat(b, ll.load(b, b.add(row, ll.i64_const(4 * four)), ll.I32, 4))
            for beside, vector in zip(sums, values, strict=True):
                beside[r] = product(b, beside[r], b.bitcast(p, vector.type), vector, 4)
    return sums


def _add_totals(
    b: Any, acc: Any, width: Any, d: Any, sums: Sequence[Sequence[Any]], scales: Sequence[Any], left: Sequence[Any] = ()
) -> None:
    """Add scaled sums to what is left of the numbers from d on, by vector of sixteen and row."""
    for i, beside in enumerate(sums):
        for r, (total, scale) in enumerate(zip(beside, scales, strict=True)):
            place = ll.at(b, acc, (width, 4 * r), (d, 4), (4 * ll.LANES, i))
            old = ll.load_as(b, place, "float32")
            if left:
                old = b.fmul(old, left[r])
            ll.store(b, place, ll.fma(b, b.sitofp(total, ll.F32X16), scale, old), 4)


def add_row_python(acc: int, p: int, behind: int, values: Sequence[int], width: int) -> None:
    """What both tiles do for a row, number by number."""
    chances = (ctypes.c_uint8 * (BLOCK * len(values))).from_address(p)
    scale = ctypes.c_float.from_address(p + behind).value
    sums = (ctypes.c_float * width).from_address(acc)
    blocks = [(ctypes.c_int8 * (BLOCK * width)).from_address(v) for v in values]
    for d in range(width):
        dots = sum(
            chances[BLOCK * i + j] * block[4 * (j // 4 * width + d) + j % 4]
            for i, block in enumerate(blocks)
            for j in range(BLOCK)
        )
        sums[d] = sums[d] + scale * dots
