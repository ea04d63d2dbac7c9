"""Latent attention over a paged cache of floats: the part of the walk in ``latent_attention`` that knows how they lie.

A cache block holds BLOCK positions as rows: the latent, zeros up to a whole number of STEP, then the rotated key that
all heads share, zeros up to a whole number of KEY_STEP. A score is a dot product with the whole row; the value is the
latent, the row's beginning.
"""

from __future__ import annotations

import math

from pio.kernels._float_attention import online_softmax
from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels._latent_shape import HEAD_LATENT, HEAD_ROPE, RANK, ROPE_DIM, SCALE, take_query
from pio.kernels._rows import fill_f32, round_row, scale_row
from pio.kernels.simd import LANES, WIDE, get_f32, get_f64, get_i64, itemsize, put_f32, splat, store_part
from pio.kernels.sizes import BLOCK, KEY_STEP
from pio.kernels.sizes import LATENT_ROWS as ROWS
from pio.kernels.sizes import LATENT_STEP as STEP
from pio.kernels.tiles import dot_tile, outer_tile, prefetch

# Rows of a tile and how many positions, or vectors of values, it takes: thirty-two registers hold 10 x 2 accumulators.
BIG, MOST, FEW, WIDTH = (10, 8, 4, 2) if WIDE else (4, 3, 2, 1)

big_dots, most_dots, few_dots = dot_tile(BIG, WIDTH), dot_tile(MOST, WIDTH), dot_tile(FEW, WIDTH)
two_dots, one_dots = dot_tile(2, WIDTH), dot_tile(1, WIDTH)
big_sums, most_sums, few_sums = outer_tile(BIG, WIDTH), outer_tile(MOST, WIDTH), outer_tile(FEW, WIDTH)
two_sums, one_sums = outer_tile(2, WIDTH), outer_tile(1, WIDTH)


@kernel
def tile_rows(rows: int) -> int:
    """Return how many of the rows that are left the next tile takes.

    Shapes: none.
    """
    if rows >= MOST:
        return BIG if rows >= BIG and rows % BIG <= rows % MOST else MOST
    return FEW if rows >= FEW else 2 if rows >= 2 else 1


@kernel_per_dtype
def score_rows(
    scores: int, q: int, latents: int, rows: int, positions: int, width: int, ahead: int, share: int
) -> None:
    """Multiply queries by a cache block.

    scores[r, j] = q[r] . latents[j]

    Shapes: q float32 (rows, width); latents (BLOCK, width) of the kernel's type; scores float32 (rows, BLOCK), of which
    up to WIDTH - 1 behind the positions become anything. Sums in float32, sixteen lanes over width, the same for every
    row. Meanwhile share bytes a position are asked for, from ahead on.
    """
    r = 0
    while r < rows:
        step = tile_rows(rows - r)
        at_q, at_scores = q + 4 * r * width, scores + 4 * r * BLOCK
        for j in range(0, positions, WIDTH):
            place, at = at_scores + 4 * j, latents + itemsize * j * width
            if r == 0:
                prefetch(ahead + j * share, WIDTH * share)
            if step == BIG:
                big_dots(place, at_q, at, width, BLOCK, width, width, 0)
            elif step == MOST:
                most_dots(place, at_q, at, width, BLOCK, width, width, 0)
            elif step == FEW:
                few_dots(place, at_q, at, width, BLOCK, width, width, 0)
            elif step == 2:
                two_dots(place, at_q, at, width, BLOCK, width, width, 0)
            else:
                one_dots(place, at_q, at, width, BLOCK, width, width, 0)
        r += step


@kernel_per_dtype
def add_latents(
    acc: int, chances: int, latents: int, rows: int, positions: int, values: int, width: int, ahead: int, share: int
) -> None:
    """Add a cache block's latents, weighted by probabilities.

    acc[r, d] += sum_j chances[r, j] * latents[j, d]

    Shapes: acc float32 (rows, values), values a multiple of STEP; chances float32 (rows, BLOCK), of which the positions
    count; latents (BLOCK, width) of the kernel's type. Sums in float32 in the order of j, the same for every row.
    Meanwhile share bytes a value are asked for, from ahead on.
    """
    r = 0
    while r < rows:
        step = tile_rows(rows - r)
        at_acc, p = acc + 4 * r * values, chances + 4 * r * BLOCK
        for d in range(0, values, LANES * WIDTH):
            place, at = at_acc + 4 * d, latents + itemsize * d
            if r == 0:
                prefetch(ahead + d * share, LANES * WIDTH * share)
            if step == BIG:
                big_sums(place, p, at, positions, values, BLOCK, width)
            elif step == MOST:
                most_sums(place, p, at, positions, values, BLOCK, width)
            elif step == FEW:
                few_sums(place, p, at, positions, values, BLOCK, width)
            elif step == 2:
                two_sums(place, p, at, positions, values, BLOCK, width)
            else:
                one_sums(place, p, at, positions, values, BLOCK, width)
        r += step


@kernel
def values_of(shape: int) -> int:
    """Return how many numbers of a row the latent takes.

    Shapes: shape int64, the record of ``_latent_shape``.
    """
    return (get_i64(shape + RANK) + STEP - 1) // STEP * STEP


@kernel
def row_of(shape: int) -> int:
    """Return how many numbers a row has.

    Shapes: shape int64, the record of ``_latent_shape``.
    """
    return values_of(shape) + (get_i64(shape + ROPE_DIM) + KEY_STEP - 1) // KEY_STEP * KEY_STEP


@kernel
def state_of(work: int, shape: int) -> int:
    """Return where the largest scores and the sums of all rows lie in ``work``.

    Shapes: work as in ``begin_rows``.
    """
    return work + 4 * ROWS * (values_of(shape) + row_of(shape) + BLOCK)


@kernel_per_dtype
def begin_rows(work: int, rows: int, shape: int) -> None:
    """Have seen nothing yet: outputs are zero, so are sums, and the largest score is below every number.

    Shapes: work float32 (latent_floats,), whose parts are outputs (ROWS, values), queries (ROWS, width), scores (ROWS,
    BLOCK), and for each row its largest score and its sum.
    """
    state = state_of(work, shape)
    fill_f32(work, rows * values_of(shape), 0.0)
    for r in range(rows):
        put_f32(state + 8 * r, -math.inf)
        put_f32(state + 8 * r + 4, 0.0)


@kernel_per_dtype
def put_queries(work: int, first: int, count: int, latent: int, rope: int, shape: int) -> None:
    """Take in the queries of some rows, times the factor of scores, laid out as the cache lays out its rows.

    Shapes: latent float32 (count, rank) and rope float32 (count, rope_dim), gaps as shape says, of the rows from
    ``first`` on; work as in ``begin_rows``.
    """
    rank, values, rope_dim = get_i64(shape + RANK), values_of(shape), get_i64(shape + ROPE_DIM)
    width = row_of(shape)
    for r in range(count):
        row = work + 4 * ROWS * values + 4 * (first + r) * width
        at_latent, at_rope = latent + 4 * r * get_i64(shape + HEAD_LATENT), rope + 4 * r * get_i64(shape + HEAD_ROPE)
        take_query(row, at_latent, at_rope, rank, values, rope_dim, get_f64(shape + SCALE))
        fill_f32(row + 4 * (values + rope_dim), width - values - rope_dim, 0.0)


@kernel_per_dtype
def take_block(work: int, latents: int, page: int, after: int, at: int, tokens: int, heads: int, shape: int) -> None:
    """Let all rows see a cache block.

    Shapes: work as in ``begin_rows``; latents (blocks, BLOCK, width) of the kernel's type; page and after
    count this block and the next; at is how far the first token's position is behind the block's first. Sums in
    float32.
    """
    values, rows, count = values_of(shape), tokens * heads, min(BLOCK, at + tokens)
    width = row_of(shape)
    q, size = work + 4 * ROWS * values, itemsize * BLOCK * width
    scores, state = q + 4 * ROWS * width, state_of(work, shape)
    here, following = latents + page * size, latents + after * size
    # half of the next block is asked for with the scores, half with the values: an even stream from memory
    score_rows(scores, q, here, rows, count, width, following, size // 2 // BLOCK)
    for r in range(rows):
        seen = min(BLOCK, at + r // heads + 1)
        online_softmax(scores + 4 * r * BLOCK, work + 4 * r * values, values, state + 8 * r, 0, seen)
    share = (size // 2 + values - 1) // values
    add_latents(work, scores, here, rows, count, values, width, following + size // 2, share)


@kernel_per_dtype
def finish_rows(out: int, work: int, first: int, count: int, shape: int) -> None:
    """Write what attention gives for some rows.

    Shapes: out float32 (count, rank), of the rows from ``first`` on; work as in ``begin_rows``.
    """
    rank, values, state = get_i64(shape + RANK), values_of(shape), state_of(work, shape)
    for r in range(count):
        total = get_f32(state + 8 * (first + r) + 4)
        scale_row(out + 4 * r * rank, work + 4 * (first + r) * values, rank, 1.0 / total)


@kernel_per_dtype
def store_position(latents: int, page: int, slot: int, latent: int, key: int, rank: int, rope_dim: int) -> None:
    """Put the latent and the shared key of a position into their block, rounded to the cache's type.

    Shapes: latent float32 (rank,); key float32 (rope_dim,); latents, page as in ``take_block``; slot < BLOCK.
    """
    values, keys = (rank + STEP - 1) // STEP * STEP, (rope_dim + KEY_STEP - 1) // KEY_STEP * KEY_STEP
    row = latents + itemsize * (page * BLOCK + slot) * (values + keys)
    round_row(row, latent, rank)
    for i in range(rank, values, LANES):
        store_part(row + itemsize * i, splat(0.0), min(LANES, values - i))
    round_row(row + itemsize * values, key, rope_dim)
    if keys > rope_dim:
        store_part(row + itemsize * (values + rope_dim), splat(0.0), keys - rope_dim)
