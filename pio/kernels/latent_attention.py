"""Attention over a paged cache of latents: all heads of a token read the same numbers, once, as keys and as values.

A cache block holds BLOCK positions as rows: the latent, zeros up to a whole number of STEP, then the rotated key that
all heads share. A score is a dot product with the whole row; the value is the latent, the row's beginning. Keys and
values of single heads are never made: what makes them is multiplied into queries and outputs instead
(``head_linear``). Blocks are walked in order of position, so a query's bits do not depend on what else is in the batch,
how the prompt was cut or how many threads ran.
"""

from __future__ import annotations

import math

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.attention import fill_f32, online_softmax, round_row, scale_row, turn_of
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import LANES, WIDE, get_f32, get_i32, itemsize, put_f32, splat, store_part
from pio.kernels.sizes import BLOCK, PARTS
from pio.kernels.sizes import LATENT_ROWS as ROWS
from pio.kernels.tiles import dot_tile, outer_tile, prefetch

ENOUGH = 4  # pieces for each thread, from which on it matters no more that one of them does one more
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
def take_query(row: int, latent: int, rope: int, rank: int, values: int, rope_dim: int, scale: float) -> None:
    """Lay a query out as the cache lays out its rows.

    row = scale * (latent, zeros, rope)

    Shapes: latent float32 (rank,); rope float32 (rope_dim,); row float32 (values + rope_dim,).
    """
    scale_row(row, latent, rank, scale)
    for i in range(rank, values):
        put_f32(row + 4 * i, 0.0)
    scale_row(row + 4 * values, rope, rope_dim, scale)


@kernel_per_dtype
def attend_blocks(
    acc: int, q: int, scores: int, state: int, latents: int, table: int, position: int, tokens: int, heads: int,
    values: int, width: int,
) -> None:  # fmt: skip
    """Walk a sequence's blocks with queries of a few of its tokens, the first of which is at ``position``.

    Leaves in acc sum_j exp(q . latents[j] - m) * latents[j] over j up to the query's own position; in state m, the
    largest of these scores, and the sum of the exponentials.

    Shapes: q float32 (tokens * heads, width); acc float32 (tokens * heads, values); scores float32 (tokens * heads,
    BLOCK); state float32 (tokens * heads, 2); latents (blocks, BLOCK, width) of the kernel's type; table int32 (blocks
    of the sequence,). tokens * heads <= ROWS. Sums in float32.
    """
    rows, end = tokens * heads, position + tokens
    size = itemsize * BLOCK * width
    for r in range(rows):
        put_f32(state + 8 * r, -math.inf)
        put_f32(state + 8 * r + 4, 0.0)
    fill_f32(acc, rows * values, 0.0)
    for block in range((end - 1) // BLOCK + 1):
        start = block * BLOCK
        count = min(BLOCK, end - start)
        at = latents + get_i32(table + 4 * block) * size
        after = latents + get_i32(table + 4 * block + 4) * size if start + BLOCK < end else at
        # half of the next block is asked for with the scores, half with the values: an even stream from memory
        score_rows(scores, q, at, rows, count, width, after, size // 2 // BLOCK)
        for r in range(rows):
            seen = min(BLOCK, position + r // heads + 1 - start)
            online_softmax(scores + 4 * r * BLOCK, acc + 4 * r * values, values, state + 8 * r, 0, seen)
        add_latents(acc, scores, at, rows, count, values, width, after + size // 2, (size // 2 + values - 1) // values)


@kernel
def heads_of_piece(heads: int, groups: int, threads: int, most: int) -> int:
    """Return how many heads of a token a piece takes: as many as it may, less where threads would end unevenly.

    Shapes: none; groups of tokens are what makes pieces besides heads.
    """
    cuts = (heads + most - 1) // most
    while cuts < heads and cuts * groups < ENOUGH * threads and cuts * groups % threads != 0:
        cuts += 1
    return (heads + cuts - 1) // cuts


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def latent_attention(
    out: int,
    q_latent: int,
    q_rope: int,
    latents: int,
    tables: int,
    starts: int,
    past: int,
    scratch: int,
    scratch_stride: int,
    sequences: int,
    ld_latent: int,
    head_latent: int,
    ld_rope: int,
    head_rope: int,
    ldt: int,
    heads: int,
    rank: int,
    values: int,
    rope_dim: int,
    scale: float,
    part: int,
    parts: int,
) -> None:
    """Attend for a batch of sequences over their paged latents, pieces of work dealt to the parts in turn.

    out[t, h] = softmax(scale * (q_latent[t, h] . latent[j] + q_rope[t, h] . key[j]), j <= position of t) @ latent[j]

    Shapes: q_latent float32 (T, heads, rank), strides of tokens and heads ld_latent and head_latent; q_rope float32
    (T, heads, rope_dim), ld_rope and head_rope; out float32 (T, heads, rank); latents (blocks, BLOCK, values +
    rope_dim) of the kernel's type, values = latent_width(rank); tables int32 (S, ldt); starts int32 (S + 1,); past
    int32 (S,); scratch float32 (parts, scratch_stride bytes). A piece is up to ROWS queries of a sequence. Sums in
    float32.
    """
    width, token_step, groups = values + rope_dim, max(1, ROWS // heads), 0
    for s in range(sequences):
        groups += (get_i32(starts + 4 * s + 4) - get_i32(starts + 4 * s) + token_step - 1) // token_step
    head_step = heads_of_piece(heads, groups, max(1, parts // PARTS), ROWS)
    q = (scratch + part * scratch_stride + 63) // 64 * 64
    acc = q + 4 * ROWS * width
    scores = acc + 4 * ROWS * values
    state = scores + 4 * ROWS * BLOCK
    piece, turn = -1, turn_of(part, parts)
    for s in range(sequences):
        first, last, before = get_i32(starts + 4 * s), get_i32(starts + 4 * s + 4), get_i32(past + 4 * s)
        for t in range(first, last, token_step):
            tokens = min(token_step, last - t)
            for h in range(0, heads, head_step):
                piece += 1
                if piece % parts != turn:
                    continue
                count = min(head_step, heads - h)
                for r in range(tokens * count):
                    at, head = t + r // count, h + r % count
                    latent = q_latent + 4 * (at * ld_latent + head * head_latent)
                    rope = q_rope + 4 * (at * ld_rope + head * head_rope)
                    take_query(q + 4 * r * width, latent, rope, rank, values, rope_dim, scale)
                table = tables + 4 * s * ldt
                attend_blocks(acc, q, scores, state, latents, table, before + t - first, tokens, count, values, width)
                for r in range(tokens * count):
                    place = out + 4 * ((t + r // count) * heads + h + r % count) * rank
                    scale_row(place, acc + 4 * r * values, rank, 1.0 / get_f32(state + 8 * r + 4))


@parallel_kernel_per_dtype
def write_latents(
    latents: int,
    latent: int,
    key: int,
    tables: int,
    starts: int,
    past: int,
    sequences: int,
    ld_latent: int,
    ld_key: int,
    ldt: int,
    rank: int,
    values: int,
    rope_dim: int,
    part: int,
    parts: int,
) -> None:
    """Store the latents and shared keys of a batch in the blocks of its sequences, split by tokens.

    latents[table[p // BLOCK], p % BLOCK] = (latent[t], zeros up to values, key[t])

    Shapes: latent float32 (T, rank), token stride ld_latent; key float32 (T, rope_dim), ld_key; latents, tables,
    starts, past as in ``latent_attention``. Rounded to the cache's type.
    """
    total = get_i32(starts + 4 * sequences)
    begin, end = part * total // parts, (part + 1) * total // parts
    for s in range(sequences):
        first, last, before = get_i32(starts + 4 * s), get_i32(starts + 4 * s + 4), get_i32(past + 4 * s)
        for t in range(max(first, begin), min(last, end)):
            at = before + t - first
            page = get_i32(tables + 4 * (s * ldt + at // BLOCK))
            row = latents + itemsize * (page * BLOCK + at % BLOCK) * (values + rope_dim)
            round_row(row, latent + 4 * t * ld_latent, rank)
            for i in range(rank, values, LANES):
                store_part(row + itemsize * i, splat(0.0), min(LANES, values - i))
            round_row(row + itemsize * values, key + 4 * t * ld_key, rope_dim)
