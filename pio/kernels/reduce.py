"""Searches through whole tensors."""

from __future__ import annotations

from pio.kernels._jit import kernel_per_dtype
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import LANES, itemsize, load, load_part, put_i64, splat, sum_lanes

BLOCK = 16 * LANES  # elements looked at before the search stops to ask


@kernel_per_dtype
def first_non_finite_range(x: int, first: int, last: int) -> int:
    """Return the first i, first <= i < last, at which x[i] is NaN or infinite, or last.

    Shapes: x (n,) of the kernel's type.
    """
    zero = splat(0.0)
    i = first
    while i < last:
        # v - v is 0 for a finite v and NaN for any other, and a NaN survives every sum
        a, b = zero, zero
        end = min(i + BLOCK, last)
        at = i
        while at + 2 * LANES <= end:
            v, w = load(x + itemsize * at), load(x + itemsize * (at + LANES))
            a, b = a + (v - v), b + (w - w)
            at += 2 * LANES
        while at < end:
            v = load_part(x + itemsize * at, min(LANES, end - at))
            a = a + (v - v)
            at += LANES
        if sum_lanes(a + b) != 0.0:
            for j in range(i, end):
                v = load_part(x + itemsize * j, 1)
                if sum_lanes(v - v) != 0.0:
                    return j
        i = end
    return last


@parallel_kernel_per_dtype
def first_non_finite(found: int, x: int, n: int, part: int, parts: int) -> None:
    """Find the first i at which x[i] is NaN or infinite, or n, in each part's own range.

    found[p] = min({i in the part: x[i] is not finite} + {n})

    Shapes: x float32, float16 or bfloat16 (n,), the kernel's type; found int64 (parts,).
    """
    last = (part + 1) * n // parts
    at = first_non_finite_range(x, part * n // parts, last)
    put_i64(found + 8 * part, at if at < last else n)
