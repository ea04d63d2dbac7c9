"""Linear layers with quantized weights: rows of quantized activations times packed blocks of 16 outputs."""

from __future__ import annotations

from pio.kernels._amx_linear import multiply_tiles
from pio.kernels._formats import BLOCK, FORMATS, RECORD, START
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels._llvm import LINE
from pio.kernels._processor import AMX
from pio.kernels.linear import add_bias
from pio.kernels.quantized_tiles import PAIRED, paired_tile, quantized_tile
from pio.kernels.simd import WIDE

ROWS, FEW = (8, 4) if WIDE else (4, 2)
PAIR_ROWS = 6  # twelve sums hide the latency of a product; with their integers they fill the registers
PAIR_FEW = 4
MANY = (
    2 * PAIR_ROWS
)  # rows that compute for longer than memory takes to bring the next blocks: two at once are worth it
CACHE = 1 << 19  # bytes of activations that stay in the second-level cache while all weights pass by
MOST_AHEAD = 1 << 18  # bytes of weights that it has room for beside them, and beside those that are met now

tile_rows, tile_few, tile_one = quantized_tile(ROWS), quantized_tile(FEW), quantized_tile(1)
pair_rows, pair_few = paired_tile(PAIR_ROWS), paired_tile(PAIR_FEW)
add_bias_f32 = add_bias["float32"]
pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)


@kernel_per_dtype
def paired_columns(
    y: int, x: int, w: int, first: int, last: int, rows: int, n: int, pairs: int, ldy: int, add: int
) -> int:
    """Compute two blocks at a time, and return which is left: the last of an odd number.

    While rows meet two blocks, the next two are asked for, a share with each tile.

    Shapes: as in ``quantized_columns``; rows at least MANY.
    """
    row, block = START + pairs * RECORD, pair_bytes * pairs
    tiles, c = (rows + PAIR_FEW) // PAIR_ROWS, first  # of six or four rows: eight and nine are two of four
    share = (2 * pair_bytes + tiles * LINE - 1) // (tiles * LINE) * LINE if 2 * block <= MOST_AHEAD else 0
    while c + 2 <= last:
        r, at_w, at_y, count = 0, w + c * block, y + 4 * BLOCK * c, min(n - BLOCK * c, 2 * BLOCK)
        ahead = at_w + 2 * block
        while r + PAIR_FEW <= rows:
            left = rows - r
            if left < PAIR_ROWS or 2 * PAIR_FEW <= left < PAIR_FEW + PAIR_ROWS:
                pair_few(at_y + 4 * r * ldy, x + r * row, at_w, pairs, ldy, count, add, ahead, share)
                r += PAIR_FEW
            else:
                pair_rows(at_y + 4 * r * ldy, x + r * row, at_w, pairs, ldy, count, add, ahead, share)
                r += PAIR_ROWS
            ahead += pairs * share
        while r < rows:
            tile_one(at_y + 4 * r * ldy, x + r * row, at_w, pairs, ldy, BLOCK, add)
            tile_one(at_y + 4 * (r * ldy + BLOCK), x + r * row, at_w + block, pairs, ldy, count - BLOCK, add)
            r += 1
        c += 2
    return c


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
        r1, begin = min(r0 + step, rows), first
        if PAIRED:
            if r1 - r0 >= MANY:
                begin = paired_columns(y + 4 * r0 * ldy, x + r0 * row, w, first, last, r1 - r0, n, pairs, ldy, add)
        for c in range(begin, last):
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
