"""Linear layers with quantized weights: rows of quantized activations times packed blocks of 16 outputs."""

from __future__ import annotations

from pio.kernels._formats import BLOCK, FORMATS, RECORD, START
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels.linear import add_bias
from pio.kernels.parallel import FINE, parallel_kernel_per_dtype
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
    for r0 in range(0, rows, step):
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


@parallel_kernel_per_dtype(parts_per_thread=FINE)
def quantized_linear(
    y: int, x: int, w: int, bias: int, rows: int, n: int, pairs: int, ldy: int, add: int, part: int, parts: int
) -> None:
    """Compute a linear layer with quantized weights, its outputs split over threads.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add) (+ bias[c] if bias is not 0)

    Shapes: as ``quantized_columns``. A row's bits depend on nothing but the row. y must not overlap x.
    """
    blocks = (n + BLOCK - 1) // BLOCK
    quantized_columns(y, x, w, bias, part * blocks // parts, (part + 1) * blocks // parts, rows, n, pairs, ldy, add)


@parallel_kernel_per_dtype(parts_per_thread=FINE)
def quantized_linear_three(
    x: int,
    y0: int,
    w0: int,
    bias0: int,
    n0: int,
    y1: int,
    w1: int,
    bias1: int,
    n1: int,
    y2: int,
    w2: int,
    bias2: int,
    n2: int,
    rows: int,
    pairs: int,
    part: int,
    parts: int,
) -> None:
    """Compute up to three linear layers of one input as if their weights were stacked: one job instead of three.

    yi[r, c] = sum_k x[r, k] * wi[c, k] (+ biasi[c] if biasi is not 0)

    Shapes: x, wi, biasi and yi as in ``quantized_columns``; ni may be 0. Sums as there, to the bit. No y may overlap x.
    """
    blocks0, blocks1, blocks2 = (n0 + BLOCK - 1) // BLOCK, (n1 + BLOCK - 1) // BLOCK, (n2 + BLOCK - 1) // BLOCK
    blocks = blocks0 + blocks1 + blocks2
    first, last = part * blocks // parts, (part + 1) * blocks // parts
    if first < blocks0:
        quantized_columns(y0, x, w0, bias0, first, min(last, blocks0), rows, n0, pairs, n0, 0)
    first, last = first - blocks0, last - blocks0
    if last > 0 and first < blocks1:
        quantized_columns(y1, x, w1, bias1, max(first, 0), min(last, blocks1), rows, n1, pairs, n1, 0)
    first, last = first - blocks1, last - blocks1
    if last > 0 and first < blocks2:
        quantized_columns(y2, x, w2, bias2, max(first, 0), min(last, blocks2), rows, n2, pairs, n2, 0)
