"""The k largest elements of a row, in order, without sorting the row."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels.simd import (
    LANES,
    get_f32,
    get_i32,
    keep,
    load_f32,
    load_part_f32,
    max_lanes,
    maximum,
    put_f32,
    put_i32,
    splat,
)
from pio.kernels.sizes import MAXIMA as BLOCK


@kernel
def block_maxima(maxima: int, x: int, n: int) -> float:
    """Take the maximum of each block of 64 elements; return the maximum of all.

    maxima[b] = max(x[64 b : 64 b + 64]), NaN left out, -inf where nothing else is there

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),). Exact. maxima must not overlap x.
    """
    lowest = splat(-math.inf)
    best = lowest
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        top = lowest
        whole = first + (last - first) // LANES * LANES
        for i in range(first, whole, LANES):
            top = maximum(top, load_f32(x + 4 * i))
        if whole < last:
            top = maximum(top, keep(load_part_f32(x + 4 * whole, last - whole), 0, last - whole, -math.inf))
        put_f32(maxima + 4 * (first // BLOCK), max_lanes(top))
        best = maximum(best, top)
    return max_lanes(best)


@kernel
def worse(values: int, ids: int, i: int, j: int) -> bool:
    """Say whether entry i ranks behind entry j: a smaller value, or an equal one with a larger id.

    Shapes: values float32, ids int32, both (more than i and j,).
    """
    a, b = get_f32(values + 4 * i), get_f32(values + 4 * j)
    return a < b or (a == b and get_i32(ids + 4 * i) > get_i32(ids + 4 * j))


@kernel
def swap(values: int, ids: int, i: int, j: int) -> None:
    """Exchange entries i and j.

    Shapes: values float32, ids int32, both (more than i and j,).
    """
    value, index = get_f32(values + 4 * i), get_i32(ids + 4 * i)
    put_f32(values + 4 * i, get_f32(values + 4 * j))
    put_i32(ids + 4 * i, get_i32(ids + 4 * j))
    put_f32(values + 4 * j, value)
    put_i32(ids + 4 * j, index)


@kernel
def sift_down(values: int, ids: int, i: int, k: int) -> None:
    """Move entry i of a heap of k, whose root ranks last, to its place.

    Shapes: values float32 (k,), ids int32 (k,).
    """
    while 2 * i + 1 < k:
        child = 2 * i + 1
        if child + 1 < k and worse(values, ids, child + 1, child):
            child += 1
        if not worse(values, ids, child, i):
            return
        swap(values, ids, i, child)
        i = child


@kernel
def top_k(values: int, ids: int, x: int, maxima: int, n: int, k: int) -> None:
    """Find the k largest elements and their indices, best first; among equals the lower index.

    values, ids = sorted(zip(x, range(n)), key=lambda e: (-e[0], e[1]))[:k]

    A heap of the k best so far is passed over by every block whose maximum cannot enter it: about n / 64 comparisons
    and k ln(n / k) insertions for values in no order, n log k steps at worst.

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``; values float32 (k,); ids int32 (k,);
    1 <= k <= n. Exact; NaN ranks as -inf. values and ids must not overlap x.
    """
    for i in range(k):
        v = get_f32(x + 4 * i)
        put_f32(values + 4 * i, v if v == v else -math.inf)
        put_i32(ids + 4 * i, i)
    for i in range(k // 2 - 1, -1, -1):
        sift_down(values, ids, i, k)
    for b in range(k // BLOCK, (n + BLOCK - 1) // BLOCK):
        if get_f32(maxima + 4 * b) > get_f32(values):
            for i in range(max(k, b * BLOCK), min(b * BLOCK + BLOCK, n)):
                v = get_f32(x + 4 * i)
                if v > get_f32(values):
                    put_f32(values, v)
                    put_i32(ids, i)
                    sift_down(values, ids, 0, k)
    for last in range(k - 1, 0, -1):
        swap(values, ids, 0, last)
        sift_down(values, ids, 0, last)


@kernel
def top_k_rows(values: int, ids: int, x: int, maxima: int, rows: int, n: int, k: int) -> None:
    """Find the k largest elements of each row.

    values[r], ids[r] = top_k(x[r])

    Shapes: x float32 (rows, n); maxima float32 (ceil(n / 64),), scratch; values float32 (rows, k); ids int32 (rows, k);
    1 <= k <= n. Exact; NaN ranks as -inf. values and ids must not overlap x.
    """
    for r in range(rows):
        block_maxima(maxima, x + 4 * r * n, n)
        top_k(values + 4 * r * k, ids + 4 * r * k, x + 4 * r * n, maxima, n, k)
