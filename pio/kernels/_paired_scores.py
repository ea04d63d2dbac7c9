"""Scores of queries against a cache block of int8 whose two halves are multiplied at once: see ``paired_tile``."""

from __future__ import annotations

from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import RECORD, START
from pio.kernels._jit import kernel
from pio.kernels._llvm import LINE
from pio.kernels.quantized_tiles import paired_tile, quantized_tile
from pio.kernels.sizes import BLOCK, KEY_PAIR

MANY, FEW = 6, 4  # rows of a tile
# what is met next is a block's time away, and stays in the first-level cache until then
many_scores, few_scores = (paired_tile(rows, level=1)["int8"] for rows in (MANY, FEW))
one_scores = quantized_tile(1)["int8"]


@kernel
def paired_scores(scores: int, q: int, keys: int, rows: int, pairs: int, wide: int, ahead: int) -> None:
    """Multiply quantized queries by a cache block's keys, and ask for the next block's a share with each tile.

    scores[r, j] = q[r] . keys[j]

    Shapes: scores float32 (rows, BLOCK), row stride wide; q (rows, 16 + 80 pairs) bytes; keys and ahead (2, pairs,
    1088) bytes. Sums as in ``quantized_tiles``.
    """
    row, half, r = START + pairs * RECORD, pairs * KEY_PAIR, 0
    tiles = max((rows + FEW) // MANY, 1)  # eight and nine rows are two of four
    share = (2 * KEY_PAIR + tiles * LINE - 1) // (tiles * LINE) * LINE
    while r + FEW <= rows:
        left = rows - r
        if left < MANY or 2 * FEW <= left < FEW + MANY:
            few_scores(scores + 4 * r * wide, q + r * row, keys, pairs, wide, BLOCK, 0, ahead, share)
            r += FEW
        else:
            many_scores(scores + 4 * r * wide, q + r * row, keys, pairs, wide, BLOCK, 0, ahead, share)
            r += MANY
        ahead += pairs * share
    while r < rows:
        one_scores(scores + 4 * r * wide, q + r * row, keys, pairs, wide, OUTPUTS, 0)
        one_scores(scores + 4 * (r * wide + OUTPUTS), q + r * row, keys + half, pairs, wide, OUTPUTS, 0)
        r += 1
