"""Register tiles: the inner loops that nearly all of a model's arithmetic runs in.

``dot_tile`` multiplies rows by rows (weights as stored, one accumulator of sixteen lanes an output over k), so that a
matrix product sums in the very order of a matrix-vector product. ``pair_tile`` does so where both are bfloat16: a lane
takes two neighbours at once, in one instruction with AVX-512 BF16 and with ARM's bf16. ``outer_tile`` multiplies rows
by a row-major matrix (attention scores over transposed keys, probabilities over values), sixteen outputs a vector, sums
in order of i. ``prefetch`` brings what a tile will meet next.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._jit import PerDtype
from pio.kernels._llvm import ITEMSIZE, LANES
from pio.kernels._llvm import at as _at
from pio.kernels._processor import DOT
from pio.kernels._quarters import ARM, F32X4, I8X16, joined, pieces
from pio.kernels.simd import Vec, fma, int64, load, load_part, primitive, splat, sum_lanes, void
from pio.kernels.sizes import PAIR_LANES, PAIRS

Tile = Callable[..., None]

# Sums of ``outer_tile`` that are walked together: tiles are as large as the registers of x86 allow. On ARM they are as
# many as AVX-512 has and a quarter as wide: with 4 x 2 sums half of all instructions would be for spilled ones.
ACCUMULATORS: Final = 4 if DOT in ARM else 24


@cache
def dot_tile(rows: int, columns: int) -> PerDtype[Tile]:
    """Return the tile ``y[r, c] = sum_k x[r, k] * w[c, k]`` for fixed rows and columns, by element type of w.

    The tile takes ``(y, x, w, k, ldy, ldx, ldw, add)``: addresses, the number of products, row strides in elements,
    and whether the old y is added (0 or 1). y and x are float32. Each output has one accumulator of sixteen lanes,
    folded by halving at the end.
    """
    return PerDtype(lambda dtype: _dot_tile(rows, columns, dtype))


def _dot_tile(rows: int, columns: int, dtype: str) -> Tile:
    size = ITEMSIZE[dtype]

    def emit(b: Any, y: Any, x: Any, w: Any, k: Any, ldy: Any, ldx: Any, ldw: Any, add: Any) -> None:
        zero = ll.constant(0.0)
        acc = [[cgutils.alloca_once_value(b, zero) for _ in range(columns)] for _ in range(rows)]

        def accumulate(start: Any, read: Callable[..., Any]) -> None:
            weights = [read(_at(b, w, (ldw, c * size), (start, size)), dtype) for c in range(columns)]
            for r in range(rows):
                xs = read(_at(b, x, (ldx, 4 * r), (start, 4)), "float32")
                for c in range(columns):
                    b.store(ll.fma(b, xs, weights[c], b.load(acc[r][c])), acc[r][c])

        whole = b.and_(k, ll.i64_const(-LANES))
        with cgutils.for_range_slice(b, ll.i64_const(0), whole, ll.i64_const(LANES), ll.I64) as (at, _):
            accumulate(at, lambda address, kind: ll.load_as(b, address, kind))
        tail = b.sub(k, whole)
        with b.if_then(b.icmp_signed(">", tail, ll.i64_const(0)), likely=False):
            accumulate(whole, lambda address, kind: ll.load_part_as(b, address, tail, kind))
        _store_sums(b, y, ldy, [[b.load(a) for a in row] for row in acc], add)

    @primitive(void, *[int64] * 8, emit=emit)
    def tile(y: int, x: int, w: int, k: int, ldy: int, ldx: int, ldw: int, add: int) -> None:
        for r in range(rows):
            for c in range(columns):
                acc = splat(0.0)
                for at in range(0, k, LANES):
                    n = min(LANES, k - at)
                    xs = load_part["float32"](x + 4 * (r * ldx + at), n)
                    acc = fma(xs, load_part[dtype](w + size * (c * ldw + at), n), acc)
                place = ctypes.c_float.from_address(y + 4 * (r * ldy + c))
                place.value = sum_lanes(acc) + (place.value if add else 0.0)

    return tile


def _store_sums(b: Any, y: Any, ldy: Any, acc: list[list[Any]], add: Any) -> None:
    """Write the sum of each accumulator's lanes to its place in y, plus what is there if it is to be added."""
    columns = len(acc[0])
    sums = ll.fold_all(b, [a for row in acc for a in row], b.fadd)
    ty = ir.VectorType(ll.F32, columns)
    keeps = b.icmp_signed("!=", add, ll.i64_const(0))
    for r in range(len(acc)):
        i, first = divmod(r * columns, LANES)  # a row of sums lies in one vector, or goes on in the next
        lanes = ir.Constant(ir.VectorType(ll.I32, columns), list(range(first, first + columns)))
        found = b.shuffle_vector(sums[i], sums[min(i + 1, len(sums) - 1)], lanes)
        place = _at(b, y, (ldy, 4 * r))
        old = b.select(keeps, ll.load(b, place, ty, 4), ir.Constant(ty, [0.0] * columns))
        ll.store(b, place, b.fadd(found, old), 4)


def _dot_bfloat16(b: Any, acc: Any, x: Any, w: Any) -> Any:
    # as LLVM declared it before it knew bfloat; later versions understand that too
    vdpbf16ps = ll.function(b, "llvm.x86.avx512bf16.dpbf16ps.512", ll.F32X16, [ll.F32X16, ll.I32X16, ll.I32X16])
    return b.call(vdpbf16ps, [acc, x, w])


def _dot_portable(b: Any, acc: Any, x: Any, w: Any) -> Any:
    """The upper neighbours' products first, then the lower ones': as the instruction does, each sum rounded."""
    upper, shift = ir.Constant(ll.I32X16, [-1 << 16] * LANES), ir.Constant(ll.I32X16, [16] * LANES)
    odd, even = ([b.bitcast(half(v, by), ll.F32X16) for v in (x, w)] for half, by in ((b.and_, upper), (b.shl, shift)))
    return ll.fma(b, even[0], even[1], ll.fma(b, odd[0], odd[1], acc))


def _dot_arm(b: Any, acc: Any, x: Any, w: Any) -> Any:
    # as LLVM declared it before it knew bfloat; later versions understand that too
    bfdot = ll.function(b, "llvm.aarch64.neon.bfdot.v4f32.v16i8", F32X4, [F32X4, I8X16, I8X16])
    quarters = zip(*(pieces(b, v) for v in (acc, x, w)), strict=True)
    return joined(b, [b.call(bfdot, [a, b.bitcast(i, I8X16), b.bitcast(j, I8X16)]) for a, i, j in quarters])


PAIR_PRODUCTS: Final = {"avx512": _dot_bfloat16, "bfdot": _dot_arm, "portable": _dot_portable}


@cache
def pair_tile(rows: int, columns: int, pairs: str = PAIRS) -> Tile:
    """Return the tile ``y[r, c] = sum_k x[r, k] * w[c, k]`` for fixed rows and columns of bfloat16.

    The tile takes what a ``dot_tile`` takes. y is float32; rows of x are whole steps of 32, zeros behind k. Lane i of
    an output's accumulator adds the product of the odd elements 2 i + 1 of a step, then that of the even ones 2 i.
    Products are exact. Both sums are rounded to nearest, so that all processors give the same bits, but for numbers
    below 1.2e-38, which count as zeros where one instruction of AVX-512 does both. That of ARM (``bfdot``) adds the two
    products first, and rounds both sums to odd: bits differ there from those of other processors, by up to two units in
    the last place a step. It is one for two; those that round as others do would be four (31 in all for 2 x 2 outputs
    and a step, for 47). On one processor all tiles give the same bits.

    Args:
        rows: Of x.
        columns: Rows of w.
        pairs: How to multiply, one of ``PAIR_PRODUCTS``.
    """
    product = PAIR_PRODUCTS[pairs]

    def emit(b: Any, y: Any, x: Any, w: Any, k: Any, ldy: Any, ldx: Any, ldw: Any, add: Any) -> None:
        acc = [[cgutils.alloca_once_value(b, ll.constant(0.0)) for _ in range(columns)] for _ in range(rows)]

        def accumulate(start: Any, read: Callable[[Any], Any]) -> None:
            weights = [read(_at(b, w, (ldw, 2 * c), (start, 2))) for c in range(columns)]
            for r in range(rows):
                xs = ll.load(b, _at(b, x, (ldx, 2 * r), (start, 2)), ll.I32X16, 2)
                for c in range(columns):
                    b.store(product(b, b.load(acc[r][c]), xs, weights[c]), acc[r][c])

        whole = b.and_(k, ll.i64_const(-PAIR_LANES))
        with cgutils.for_range_slice(b, ll.i64_const(0), whole, ll.i64_const(PAIR_LANES), ll.I64) as (at, _):
            accumulate(at, lambda address: ll.load(b, address, ll.I32X16, 2))
        tail = b.sub(k, whole)
        with b.if_then(b.icmp_signed(">", tail, ll.i64_const(0)), likely=False):
            nbytes = b.mul(tail, ll.i64_const(2))
            accumulate(whole, lambda address: ll.load_bytes(b, address, nbytes, ll.I32X16))
        _store_sums(b, y, ldy, [[b.load(a) for a in row] for row in acc], add)

    @primitive(void, *[int64] * 8, emit=emit)
    def tile(y: int, x: int, w: int, k: int, ldy: int, ldx: int, ldw: int, add: int) -> None:
        for r in range(rows):
            for c in range(columns):
                acc = splat(0.0)
                for at in range(0, k, PAIR_LANES):
                    xs = _step(x + 2 * (r * ldx + at), PAIR_LANES)
                    ws = _step(w + 2 * (c * ldw + at), min(PAIR_LANES, k - at))
                    for first in (1, 0):
                        acc = fma(Vec(xs[first::2]), Vec(ws[first::2]), acc)
                place = ctypes.c_float.from_address(y + 4 * (r * ldy + c))
                place.value = sum_lanes(acc) + (place.value if add else 0.0)

    return tile


def _step(address: int, n: int) -> list[float]:
    """The first n of 32 elements, zeros behind."""
    read = load_part["bfloat16"]
    return [*read(address, min(n, LANES)), *read(address + 2 * LANES, max(n - LANES, 0))]


@cache
def outer_tile(rows: int, vectors: int, accumulators: int = ACCUMULATORS) -> PerDtype[Tile]:
    """Return the tile ``c[r, j] += sum_i a[r, i] * b[i, j]`` for fixed rows and 16 * vectors columns, by b's type.

    The tile takes ``(c, a, b, n, ldc, lda, ldb)``: addresses, the number of products, row strides in elements.
    c and a are float32; c is read and written. Sums run in the order of i.

    Args:
        rows: Of a.
        vectors: Of a row of b.
        accumulators: Of sixteen lanes, as many as stay in registers: b is walked by so many columns at once.
    """
    return PerDtype(lambda dtype: _outer_tile(rows, vectors, dtype, max(accumulators // rows, 1)))


def _outer_tile(rows: int, vectors: int, dtype: str, together: int) -> Tile:
    size = ITEMSIZE[dtype]

    def emit(b: Any, out: Any, left: Any, right: Any, n: Any, ldc: Any, lda: Any, ldb: Any) -> None:
        for first in range(0, vectors, together):
            columns(b, range(first, min(first + together, vectors)), out, left, right, n, ldc, lda, ldb)

    def columns(b: Any, which: range, out: Any, left: Any, right: Any, n: Any, ldc: Any, lda: Any, ldb: Any) -> None:
        places = [[_at(b, out, (ldc, 4 * r), (64, v)) for v in which] for r in range(rows)]
        acc = [[cgutils.alloca_once_value(b, ll.load_as(b, p, "float32")) for p in row] for row in places]
        with cgutils.for_range(b, n, intp=ll.I64) as loop:
            i = loop.index
            row = [ll.load_as(b, _at(b, right, (b.mul(ldb, i), size), (LANES * size, v)), dtype) for v in which]
            for r in range(rows):
                factor = ll.splat(b, ll.load(b, _at(b, left, (lda, 4 * r), (i, 4)), ll.F32, 4))
                for total, numbers in zip(acc[r], row, strict=True):
                    b.store(ll.fma(b, factor, numbers, b.load(total)), total)
        for its_places, totals in zip(places, acc, strict=True):
            for place, total in zip(its_places, totals, strict=True):
                ll.store(b, place, b.load(total), 4)

    @primitive(void, *[int64] * 7, emit=emit)
    def tile(c: int, a: int, b: int, n: int, ldc: int, lda: int, ldb: int) -> None:
        for r in range(rows):
            for v in range(vectors):
                place = c + 4 * (r * ldc + LANES * v)
                acc = load["float32"](place)
                for i in range(n):
                    factor = ctypes.c_float.from_address(a + 4 * (r * lda + i)).value
                    acc = fma(splat(factor), load[dtype](b + size * (i * ldb + LANES * v)), acc)
                for j, value in enumerate(acc):
                    ctypes.c_float.from_address(place + 4 * j).value = value

    return tile


def _emit_prefetch(b: Any, address: Any, n: Any, level: int = 2) -> None:
    with cgutils.for_range_slice(b, ll.i64_const(0), n, ll.i64_const(ll.LINE), ll.I64) as (at, _):
        ll.prefetch(b, b.add(address, at), level)


@primitive(void, int64, int64, emit=_emit_prefetch)
def prefetch(address: int, n: int) -> None:
    """Ask for n bytes to be in the second-level cache soon: many more can be on their way there than to the first."""


@primitive(void, int64, int64, emit=partial(_emit_prefetch, level=1))
def prefetch_near(address: int, n: int) -> None:
    """Ask for n bytes to be in the first-level cache soon: few, and next to be read."""
