"""Softmax of rows."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels.exponential import exp
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import (
    LANES,
    keep,
    load_f32,
    load_part_f32,
    max_lanes,
    maximum,
    splat,
    store_f32,
    store_part_f32,
    sum_lanes,
)

BLOCK = 64 * LANES  # a vocabulary summed in sixteen float32 lanes alone would lose the fifth digit


@kernel
def row_max(x: int, n: int) -> float:
    """Return the largest element of a vector without NaN; -inf of none.

    Shapes: x float32 (n,).
    """
    a, b = splat(-math.inf), splat(-math.inf)
    pairs = n // (2 * LANES) * (2 * LANES)
    for i in range(0, pairs, 2 * LANES):
        a, b = maximum(a, load_f32(x + 4 * i)), maximum(b, load_f32(x + 4 * (i + LANES)))
    for i in range(pairs, n, LANES):
        part = min(LANES, n - i)
        a = maximum(a, keep(load_part_f32(x + 4 * i, part), 0, part, -math.inf))
    return max_lanes(maximum(a, b))


@kernel
def exp_row(out: int, x: int, n: int, shift: float) -> float:
    """Take the exponential of a shifted vector, and its sum.

    out[i] = e^(x[i] - shift);  returns sum_i out[i]

    Shapes: x, out float32 (n,). Sums in float32, sixteen lanes, and in float64 over blocks. out may be x.
    """
    total, minus = 0.0, splat(shift)
    for first in range(0, n, BLOCK):
        acc = splat(0.0)
        last = min(first + BLOCK, n)
        whole = last - (last - first) % LANES
        for i in range(4 * first, 4 * whole, 4 * LANES):
            v = exp(load_f32(x + i) - minus)
            store_f32(out + i, v)
            acc = acc + v
        if last > whole:
            i, rest = 4 * whole, last - whole
            v = exp(load_part_f32(x + i, rest) - minus)
            store_part_f32(out + i, v, rest)
            acc = acc + keep(v, 0, rest, 0.0)
        total += sum_lanes(acc)
    return total


@kernel
def divide_row(x: int, n: int, by: float) -> None:
    """Divide a vector by a number, in place.

    Shapes: x float32 (n,).
    """
    divisor = splat(by)
    whole = n // LANES * LANES
    for i in range(0, 4 * whole, 4 * LANES):
        store_f32(x + i, load_f32(x + i) / divisor)
    if n > whole:
        i, rest = 4 * whole, n - whole
        store_part_f32(x + i, load_part_f32(x + i, rest) / divisor, rest)


@kernel
def softmax_rows(out: int, x: int, first: int, last: int, n: int) -> None:
    """Turn rows into probabilities.

    out[r, c] = e^(x[r, c] - m) / sum_j e^(x[r, j] - m) with m = max(x[r]),  first <= r < last

    Shapes: x, out float32 (rows, n). Sums as in ``exp_row``. A row with NaN or +inf, or of nothing but -inf,
    is all NaN. out may be x.
    """
    for r in range(first, last):
        row, to = x + 4 * r * n, out + 4 * r * n
        divide_row(to, n, exp_row(to, row, n, row_max(row, n)))


@parallel_kernel
def softmax(out: int, x: int, rows: int, n: int, part: int, parts: int) -> None:
    """Turn rows into probabilities, split over threads.

    Shapes: as ``softmax_rows``.
    """
    softmax_rows(out, x, part * rows // parts, (part + 1) * rows // parts, n)
