"""Linear layers of bfloat16: rows of activations rounded to it times rows of weights, as the checkpoint stores them."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels._processor import DOT
from pio.kernels._quarters import ARM
from pio.kernels.linear import add_bias
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import LANES, WIDE, load_f32, load_part_f32, splat, store
from pio.kernels.tiles import PAIR_LANES, PAIRS, pair_tile

# What the registers hold: accumulators beside a weight of each column and one input, which are two vectors each where
# they must be widened. ARM's registers are as many as those of AVX-512 and a quarter as wide.
ROWS, COLUMNS = (4, 6) if PAIRS == "avx512" else (4, 4) if WIDE else (2, 2) if DOT in ARM else (2, 3)
ROW_BLOCK = 256  # rows of activations that stay in the caches while all weights pass by

tile_block, tile_edge, tile_one = pair_tile(ROWS, COLUMNS), pair_tile(ROWS, 1), pair_tile(1, 1)
add_bias_bfloat16, store_bfloat16 = add_bias["bfloat16"], store["bfloat16"]


@kernel
def round_row(out: int, x: int, k: int) -> None:
    """Round one row to bfloat16, zeros behind it up to a whole step.

    out[i] = bfloat16(x[i]), halves to even

    Shapes: x float32 (k,); out bfloat16 (ceil(k / 32) * 32,).
    """
    for i in range(0, (k + PAIR_LANES - 1) // PAIR_LANES * PAIR_LANES, LANES):
        n = k - i
        if n >= LANES:
            store_bfloat16(out + 2 * i, load_f32(x + 4 * i))
        elif n > 0:
            store_bfloat16(out + 2 * i, load_part_f32(x + 4 * i, n))
        else:
            store_bfloat16(out + 2 * i, splat(0.0))


@parallel_kernel
def round_rows(out: int, x: int, rows: int, k: int, part: int, parts: int) -> None:
    """Round rows of activations to bfloat16, split by rows; NaN stays NaN, what is too large becomes infinite.

    out[r, i] = bfloat16(x[r, i]), halves to even; zeros behind k

    Shapes: x float32 (rows, k); out bfloat16 (rows, ceil(k / 32) * 32). out must not overlap x.
    """
    width = (k + PAIR_LANES - 1) // PAIR_LANES * PAIR_LANES
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        round_row(out + 2 * r * width, x + 4 * r * k, k)


@kernel
def bfloat16_columns(
    y: int, x: int, w: int, bias: int, first: int, last: int, rows: int, k: int, ldy: int, add: int
) -> None:
    """Compute the outputs first <= c < last of every row.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add) (+ bias[c] if bias is not 0)

    Shapes: x bfloat16 (rows, ceil(k / 32) * 32), zeros behind k; w (n, k) and bias (n,) bfloat16; y float32 (rows, n),
    row stride ldy. Sums in float32, sixteen lanes over pairs of k, in one order for every row. y must not overlap x.
    """
    width = (k + PAIR_LANES - 1) // PAIR_LANES * PAIR_LANES
    for r0 in range(0, rows, ROW_BLOCK):
        r1 = min(r0 + ROW_BLOCK, rows)
        whole = r0 + (r1 - r0) // ROWS * ROWS
        c = first
        while whole > r0 and c < last:
            step = COLUMNS if last - c >= COLUMNS else 1
            at_w = w + 2 * c * k
            for r in range(r0, whole, ROWS):
                if step == COLUMNS:
                    tile_block(y + 4 * (r * ldy + c), x + 2 * r * width, at_w, k, ldy, width, k, add)
                else:
                    tile_edge(y + 4 * (r * ldy + c), x + 2 * r * width, at_w, k, ldy, width, k, add)
            c += step
        if whole < r1:  # in the very order of memory, as in ``linear``
            for c in range(first, last):
                for r in range(whole, r1):
                    tile_one(y + 4 * (r * ldy + c), x + 2 * r * width, w + 2 * c * k, k, ldy, width, k, add)
    if bias != 0:
        for r in range(rows):
            add_bias_bfloat16(y + 4 * (r * ldy + first), bias + 2 * first, last - first)
