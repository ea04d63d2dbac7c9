"""A sum behind a gate: rows are added to others as far as a gate of each lets them."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels.activation import sigmoid_lanes
from pio.kernels.linear import linear_columns
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import LANES, fma, get_f32, splat


@kernel
def add_scaled_row(out: int, y: int, gate: float, n: int) -> None:
    """Add a row to another behind a gate.

    out[c] += y[c] / (1 + e^-gate)

    Shapes: out, y float32 (n,). out must not overlap y.
    """
    scale, zero = sigmoid_lanes(splat(gate)), splat(0.0)
    for c in range(0, n, LANES):
        value = fma(load_up_to(y + 4 * c, n - c), scale, zero)
        store_up_to(out + 4 * c, load_up_to(out + 4 * c, n - c) + value, n - c)


@parallel_kernel_per_dtype
def add_gated(
    out: int, y: int, x: int, weight: int, logits: int, rows: int, n: int, k: int, part: int, parts: int
) -> None:
    """Add rows to others, each behind a gate that a row of inputs opens; rows split over threads.

    logits[r] = sum_i x[r, i] * weight[i];  out[r, c] += y[r, c] / (1 + e^-logits[r])

    Shapes: out, y float32 (rows, n); x float32 (rows, k); weight (k,) of the kernel's type; logits float32 (rows,).
    Sums in float32, in the order of ``linear``. out must not overlap y.
    """
    first, last = part * rows // parts, (part + 1) * rows // parts
    linear_columns(logits + 4 * first, x + 4 * first * k, weight, 0, 0, 1, last - first, k, 1, k, 0)
    for r in range(first, last):
        add_scaled_row(out + 4 * r * n, y + 4 * r * n, get_f32(logits + 4 * r), n)
