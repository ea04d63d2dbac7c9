"""Linear layers with quantized weights: rows of quantized activations times packed blocks of 16 outputs."""

from __future__ import annotations

from pio.kernels._amx_linear import multiply_tiles
from pio.kernels._formats import BLOCK, FORMATS, RECORD, START
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels._processor import AMX
from pio.kernels.linear import add_bias
from pio.kernels.quantized_tiles import quantized_tile
from pio.kernels.simd import WIDE

ROWS, FEW = (8, 4) if WIDE else (4, 2)
CACHE = 1 << 19  # bytes of activations that stay in the second-level cache while all weights pass by

tile_rows, tile_few, tile_one = quantized_tile(ROWS), quantized_tile(FEW), quantized_tile(1)
add_bias_f32 = add_bias["float32"]
pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)


@kernel_per_dtype
def quantized_columns(
    y: int, x: int, w: int, bias: int, first: int, last: int, rows: int, n: int, pairs: int, ldy: int, add: int
) -> None:
    """Compute the blocks first <= b < last of every row.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add) (+ bias[c] if bias is not 0)

    Shapes: x (rows, 16 + 80 pairs) bytes and w (blocks, pairs, bytes) of the kernel's format, as ``_formats`` lays them
    out; bias float32 (n,); y float32 (rows, n), row stride ldy. Integer sums within a group, float32 sums over groups
    in their order. y must not overlap x.
    """
    row, block = START + pairs * RECORD, pair_bytes * pairs
    step = max(CACHE // row // ROWS, 1) * ROWS
    done = multiply_tiles(y, x, w, first, last, rows, n, pairs, ldy, add) if AMX else 0
    for r0 in range(done, rows, step):
        r1 = min(r0 + step, rows)
        for c in range(first, last):
            r, at_w, at_y, count = r0, w + c * block, y + 4 * BLOCK * c, min(n - BLOCK * c, BLOCK)
            while r + ROWS <= r1:
                tile_rows(at_y + 4 * r * ldy, x + r * row, at_w, pairs, ldy, count, add)
                r += ROWS
            while r + FEW <= r1:
                tile_few(at_y + 4 * r * ldy, x + r * row, at_w, pairs, ldy, count, add)
                r += FEW
            while r < r1:
                tile_one(at_y + 4 * r * ldy, x + r * row, at_w, pairs, ldy, count, add)
                r += 1
    if bias != 0:
        c = BLOCK * first
        for r in range(rows):
            add_bias_f32(y + 4 * (r * ldy + c), bias + 4 * c, min(BLOCK * last, n) - c)
