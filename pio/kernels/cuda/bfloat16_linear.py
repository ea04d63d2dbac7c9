"""Rows of activations rounded to bfloat16, as ``pio.kernels.bfloat16_linear``; ``linear`` multiplies them."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda.ptx import block_index, block_size, get_f32, grid_size, single, store, thread_index
from pio.kernels.cuda.tiles import STEP

store_bfloat16 = store["bfloat16"]


@cuda_kernel
def round_rows(out: int, x: int, rows: int, k: int) -> None:
    """Round rows of activations to bfloat16; NaN stays NaN, what is too large becomes infinite.

    out[r, i] = bfloat16(x[r, i]), halves to even; zeros behind k

    Shapes: x float32 (rows, k); out bfloat16 (rows, ceil(k / 32) * 32). out must not overlap x.
    """
    width = (k + STEP - 1) // STEP * STEP
    i = block_index() * block_size() + thread_index()
    while i < rows * width:
        r = i // width
        c = i - r * width
        value = single(0.0)
        if c < k:
            value = get_f32(x + 4 * (r * k + c))
        store_bfloat16(out + 2 * i, value)
        i += grid_size() * block_size()
