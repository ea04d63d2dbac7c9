"""Register tiles: the two inner loops that nearly all of a model's arithmetic runs in.

``dot_tile`` multiplies rows by rows (weights as stored, one accumulator of sixteen lanes an output over k), so that a
matrix product sums in the very order of a matrix-vector product. ``outer_tile`` multiplies rows by a row-major matrix
(attention scores over transposed keys, probabilities over values), sixteen outputs a vector, sums in order of i.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._jit import PerDtype
from pio.kernels._llvm import ITEMSIZE, LANES
from pio.kernels._llvm import at as _at
from pio.kernels.simd import fma, int64, load, load_part, primitive, splat, sum_lanes, void

Tile = Callable[..., None]


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
        keeps = b.icmp_signed("!=", add, ll.i64_const(0))
        for r in range(rows):
            for c in range(columns):
                place = _at(b, y, (ldy, 4 * r), (4, c))
                old = b.select(keeps, ll.load(b, place, ll.F32, 4), ir.Constant(ll.F32, 0.0))
                ll.store(b, place, b.fadd(ll.fold(b, b.load(acc[r][c]), b.fadd), old), 4)

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


@cache
def outer_tile(rows: int, vectors: int) -> PerDtype[Tile]:
    """Return the tile ``c[r, j] += sum_i a[r, i] * b[i, j]`` for fixed rows and 16 * vectors columns, by b's type.

    The tile takes ``(c, a, b, n, ldc, lda, ldb)``: addresses, the number of products, row strides in elements.
    c and a are float32; c is read and written. Sums run in the order of i.
    """
    return PerDtype(lambda dtype: _outer_tile(rows, vectors, dtype))


def _outer_tile(rows: int, vectors: int, dtype: str) -> Tile:
    size = ITEMSIZE[dtype]

    def emit(b: Any, out: Any, left: Any, right: Any, n: Any, ldc: Any, lda: Any, ldb: Any) -> None:
        places = [[_at(b, out, (ldc, 4 * r), (64, v)) for v in range(vectors)] for r in range(rows)]
        acc = [[cgutils.alloca_once_value(b, ll.load_as(b, p, "float32")) for p in row] for row in places]
        with cgutils.for_range(b, n, intp=ll.I64) as loop:
            i = loop.index
            row = [
                ll.load_as(b, _at(b, right, (b.mul(ldb, i), size), (LANES * size, v)), dtype) for v in range(vectors)
            ]
            for r in range(rows):
                factor = ll.splat(b, ll.load(b, _at(b, left, (lda, 4 * r), (i, 4)), ll.F32, 4))
                for v in range(vectors):
                    b.store(ll.fma(b, factor, row[v], b.load(acc[r][v])), acc[r][v])
        for r in range(rows):
            for v in range(vectors):
                ll.store(b, places[r][v], b.load(acc[r][v]), 4)

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
