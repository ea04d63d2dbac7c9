"""Linear layers: rows of activations times rows of weights, as the checkpoint stores them."""

from __future__ import annotations

from pio.kernels._jit import kernel_per_dtype
from pio.kernels.simd import LANES, WIDE, itemsize, load, load_f32, load_part, load_part_f32, store_f32, store_part_f32
from pio.kernels.sizes import LINEAR_COLUMNS as COLUMNS
from pio.kernels.tiles import dot_tile

# Thirty-two registers hold 4 x 6 accumulators beside their operands; sixteen half as wide ones hold 2 x 2.
ROWS = 4 if WIDE else 2
ROW_BLOCK = 64  # rows of activations that stay in the second-level cache while all weights pass by

tile_block = dot_tile(ROWS, COLUMNS)
tile_edge = dot_tile(ROWS, 1)
# One row of activations reads the weights in the very order of memory, which the processor's prefetcher follows at
# full speed; several columns at once would be several streams, each of them begun anew with every short row.
tile_one = dot_tile(1, 1)


@kernel_per_dtype
def linear_columns(
    y: int, x: int, w: int, bias: int, first: int, last: int, rows: int, k: int, ldy: int, ldx: int, add: int
) -> None:
    """Compute the outputs first <= c < last of every row.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add) (+ bias[c] if bias is not 0)

    Shapes: x float32 (rows, k); w (n, k) and bias (n,) of the kernel's type; y float32 (rows, n); row strides ldx, ldy.
    Sums in float32, sixteen lanes over k, in the same order for every row. y must not overlap x.
    """
    for r0 in range(0, rows, ROW_BLOCK):
        r1 = min(r0 + ROW_BLOCK, rows)
        whole = r0 + (r1 - r0) // ROWS * ROWS
        c = first
        while whole > r0 and c < last:
            step = COLUMNS if last - c >= COLUMNS else 1
            at_w = w + itemsize * c * k
            for r in range(r0, whole, ROWS):
                if step == COLUMNS:
                    tile_block(y + 4 * (r * ldy + c), x + 4 * r * ldx, at_w, k, ldy, ldx, k, add)
                else:
                    tile_edge(y + 4 * (r * ldy + c), x + 4 * r * ldx, at_w, k, ldy, ldx, k, add)
            c += step
        if whole < r1:
            for c in range(first, last):
                for r in range(whole, r1):
                    tile_one(y + 4 * (r * ldy + c), x + 4 * r * ldx, w + itemsize * c * k, k, ldy, ldx, k, add)
    if bias != 0:
        for r in range(rows):
            add_bias(y + 4 * (r * ldy + first), bias + itemsize * first, last - first)


@kernel_per_dtype
def add_bias(y: int, bias: int, n: int) -> None:
    """Add a vector to a row.

    y[i] += bias[i]

    Shapes: y float32 (n,); bias (n,) of the kernel's type.
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(y + 4 * i, load_f32(y + 4 * i) + load(bias + itemsize * i))
    if n > whole:
        rest = n - whole
        value = load_part_f32(y + 4 * whole, rest) + load_part(bias + itemsize * whole, rest)
        store_part_f32(y + 4 * whole, value, rest)
