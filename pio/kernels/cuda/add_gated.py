"""A sum behind a gate, as ``pio.kernels.add_gated``: a block takes a stretch of a row, and finds its gate by itself."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function_per_dtype
from pio.kernels.cuda._quads import load_four_of, load_four_weights, store_four_of
from pio.kernels.cuda._reduce import block_sum
from pio.kernels.cuda.exponential import sigmoid
from pio.kernels.cuda.ptx import block_index, fma, grid_size, quotient, single, thread_index

BLOCK = 256
COLUMNS = 4 * BLOCK  # of a row that a block takes at once
SHARED = 4 * 32


@device_function_per_dtype
def share_of(x: int, weight: int, k: int) -> float:
    """Sum a thread's products of a row of inputs and the weights: every BLOCK-th four of them, in order.

    Shapes: x float32 (k,); weight (k,) of the kernel's type.
    """
    total, i = single(0.0), 4 * thread_index()
    while i < k:
        a, b, c, d = load_four_of(x, i, k, single(0.0))
        e, f, g, h = load_four_weights(weight, i, k)
        total = fma(d, h, fma(c, g, fma(b, f, fma(a, e, total))))
        i += COLUMNS
    return total


@cuda_kernel_per_dtype(block=BLOCK, shared=SHARED)
def add_gated(out: int, y: int, x: int, weight: int, logits: int, rows: int, n: int, k: int) -> None:
    """Add rows to others, each behind a gate that a row of inputs opens.

    out[r, c] += y[r, c] / (1 + e^-(sum_i x[r, i] * weight[i]))

    Shapes: out, y float32 (rows, n); x float32 (rows, k); weight (k,) of the kernel's type; logits are not used. Sums
    in float32: each thread its fours in order, then all threads. out must not overlap y. What is added is read before
    the sum is waited for.
    """
    stretches, item = (n + COLUMNS - 1) // COLUMNS, block_index()
    while item < rows * stretches:
        r = quotient(item, stretches)
        i, to, row = (item - r * stretches) * COLUMNS + 4 * thread_index(), out + 4 * r * n, y + 4 * r * n
        a, b, c, d = load_four_of(row, i, n, single(0.0))
        e, f, g, h = load_four_of(to, i, n, single(0.0))
        gate = sigmoid(block_sum(share_of(x + 4 * r * k, weight, k)))
        store_four_of(to, i, n, fma(a, gate, e), fma(b, gate, f), fma(c, gate, g), fma(d, gate, h))
        item += grid_size()
