"""Softmax of rows, as ``pio.kernels.softmax``: a block takes a row, or a warp a short one."""

from __future__ import annotations

import math

from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda._quads import load_four_of, store_four_of, team_max, team_of, team_sum
from pio.kernels.cuda.exponential import exp
from pio.kernels.cuda.ptx import divide, maximum, single


@cuda_kernel(shared=4 * 32)
def softmax(out: int, x: int, rows: int, n: int) -> None:
    """Turn rows into probabilities.

    out[r, c] = e^(x[r, c] - m) / sum_j e^(x[r, j] - m) with m = max(x[r])

    Shapes: x, out float32 (rows, n). Sums in float32, each thread's fours first. A row with NaN or +inf, or of nothing
    but -inf, is all NaN. out may be x.
    """
    lowest = single(-math.inf)
    lane, team, r, step = team_of(n)
    while r < rows:
        row, to = x + 4 * r * n, out + 4 * r * n
        top, i = lowest, 4 * lane
        while i < n:
            a, b, c, d = load_four_of(row, i, n, lowest)
            top = maximum(top, maximum(maximum(a, b), maximum(c, d)))
            i += 4 * team
        top = team_max(top, team)
        total, i = single(0.0), 4 * lane
        while i < n:
            a, b, c, d = load_four_of(row, i, n, lowest)
            a, b, c, d = exp(a - top), exp(b - top), exp(c - top), exp(d - top)
            store_four_of(to, i, n, a, b, c, d)
            if i + 4 > n:  # beyond the end nothing counts, not even a NaN
                b = b if i + 1 < n else single(0.0)
                c = c if i + 2 < n else single(0.0)
                d = single(0.0)
            total = total + ((a + b) + (c + d))
            i += 4 * team
        total = team_sum(total, team)
        i = 4 * lane
        while i < n:
            a, b, c, d = load_four_of(to, i, n, lowest)
            store_four_of(to, i, n, divide(a, total), divide(b, total), divide(c, total), divide(d, total))
            i += 4 * team
        r += step
