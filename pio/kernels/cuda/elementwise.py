"""Arithmetic on tensors of the same shape, as ``pio.kernels.elementwise``."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda._quads import load_four_of, store_four_of
from pio.kernels.cuda.ptx import block_index, block_size, grid_size, single, thread_index


@cuda_kernel
def add(out: int, x: int, y: int, n: int) -> None:
    """Add vectors.

    out[i] = x[i] + y[i]

    Shapes: x, y, out float32 (n,). out may be x or y.
    """
    i, step = 4 * (block_index() * block_size() + thread_index()), 4 * grid_size() * block_size()
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        e, f, g, h = load_four_of(y, i, n, single(0.0))
        store_four_of(out, i, n, a + e, b + f, c + g, d + h)
        i += step


@cuda_kernel
def mul(out: int, x: int, y: int, n: int) -> None:
    """Multiply vectors element by element.

    out[i] = x[i] * y[i]

    Shapes: x, y, out float32 (n,). out may be x or y.
    """
    i, step = 4 * (block_index() * block_size() + thread_index()), 4 * grid_size() * block_size()
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        e, f, g, h = load_four_of(y, i, n, single(0.0))
        store_four_of(out, i, n, a * e, b * f, c * g, d * h)
        i += step
