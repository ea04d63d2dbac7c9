"""Searches through whole tensors, as ``pio.kernels.reduce``."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel_per_dtype
from pio.kernels.cuda._quads import load_four_weights
from pio.kernels.cuda.ptx import block_index, block_size, grid_size, lower_i64, single, thread_index


@cuda_kernel_per_dtype
def first_non_finite(found: int, x: int, n: int) -> None:
    """Find the first i at which x[i] is NaN or infinite.

    found[0] = min(found[0], min({i: x[i] is not finite}))

    Shapes: x float32, float16 or bfloat16 (n,), the kernel's type; found int64 (1,), which holds n before, or what an
    earlier search has found.
    """
    zero = single(0.0)
    i, step = 4 * (block_index() * block_size() + thread_index()), 4 * grid_size() * block_size()
    while i < n:
        a, b, c, d = load_four_weights(x, i, n)
        # v - v is 0 for a finite v and NaN for any other
        a, b, c, d = a - a, b - b, c - c, d - d
        if not ((a + b) + (c + d) == zero):
            at = i + 3
            at = i + 2 if not c == zero else at
            at = i + 1 if not b == zero else at
            lower_i64(found, i if not a == zero else at)
            return  # what this thread would meet behind it comes later
        i += step
