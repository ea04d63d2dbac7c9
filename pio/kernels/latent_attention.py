"""Attention over a paged cache of latents: all heads of a token read the same numbers, once, as keys and as values.

A cache block holds BLOCK positions: of each the latent and the rotated key that all heads share. A score is a dot
product with both; the value is the latent. Keys and values of single heads are never made: what makes them is
multiplied into queries and outputs instead (``head_linear``). Blocks are walked in order of position, so a query's bits
do not depend on what else is in the batch, how the prompt was cut or how many threads ran. How a block lies in memory,
and what is computed of it, is the business of the cache's format: ``_float_latent`` for float32, float16 and bfloat16,
``quantized_latent`` for int8.
"""

from __future__ import annotations

from pio.kernels import _float_latent as floats
from pio.kernels import quantized_latent as int8
from pio.kernels._jit import PerDtype, kernel, kernel_per_dtype
from pio.kernels._latent_shape import HEAD_LATENT, HEAD_ROPE, HEADS, RANK, SCRATCH, TOKEN_LATENT, TOKEN_ROPE
from pio.kernels._slices import in_format, past_of, sequences_of, start_of, table_of, turn_of
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import get_i32, get_i64
from pio.kernels.sizes import BLOCK, PARTS

ENOUGH = 4  # pieces for each thread, from which on it matters no more that one of them does one more

begin_rows, put_queries = in_format(floats.begin_rows, int8.begin_rows), in_format(floats.put_queries, int8.put_queries)
take_block, finish_rows = in_format(floats.take_block, int8.take_block), in_format(floats.finish_rows, int8.finish_rows)
store_position = in_format(floats.store_position, int8.store_position)
# queries that walk the cache together
most_rows = PerDtype(lambda kind: int8.ROWS if kind == "int8" else floats.ROWS)


@kernel
def heads_of_piece(heads: int, groups: int, threads: int, most: int) -> int:
    """Return how many heads of a token a piece takes: as many as it may, less where threads would end unevenly.

    Shapes: none; groups of tokens are what makes pieces besides heads.
    """
    cuts = (heads + most - 1) // most
    while cuts < heads and cuts * groups < ENOUGH * threads and cuts * groups % threads != 0:
        cuts += 1
    return (heads + cuts - 1) // cuts


@kernel_per_dtype
def attend_piece(
    out: int, q_latent: int, q_rope: int, latents: int, batch: int, work: int, shape: int, s: int, t: int, h: int,
    count: int,
) -> None:  # fmt: skip
    """Attend for a few tokens of a sequence, from t on, and for ``count`` of their heads, from h on.

    Shapes: as in ``latent_attention``; work is scratch of the kernel's kind.
    """
    heads, rank = get_i64(shape + HEADS), get_i64(shape + RANK)
    first, last, table = start_of(batch, s), start_of(batch, s + 1), table_of(batch, s)
    tokens = min(max(1, int(most_rows) // heads), last - t)
    position = past_of(batch, s) + t - first
    end = position + tokens
    begin_rows(work, tokens * count, shape)
    for i in range(tokens):
        latent = q_latent + 4 * ((t + i) * get_i64(shape + TOKEN_LATENT) + h * get_i64(shape + HEAD_LATENT))
        rope = q_rope + 4 * ((t + i) * get_i64(shape + TOKEN_ROPE) + h * get_i64(shape + HEAD_ROPE))
        put_queries(work, i * count, count, latent, rope, shape)
    for block in range((end - 1) // BLOCK + 1):
        page = get_i32(table + 4 * block)
        after = get_i32(table + 4 * block + 4) if block * BLOCK + BLOCK < end else page
        take_block(work, latents, page, after, position - block * BLOCK, tokens, count, shape)
    for i in range(tokens):
        finish_rows(out + 4 * ((t + i) * heads + h) * rank, work, i * count, count, shape)


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def latent_attention(
    out: int, q_latent: int, q_rope: int, latents: int, batch: int, scratch: int, shape: int, part: int, parts: int
) -> None:
    """Attend for a batch of sequences over their paged latents, pieces of work dealt to the parts in turn.

    out[t, h] = softmax(scale * (q_latent[t, h] . latent[j] + q_rope[t, h] . key[j]), j <= position of t) @ latent[j]

    Shapes: q_latent float32 (T, heads, rank) and q_rope float32 (T, heads, rope_dim), with gaps as shape says; out
    float32 (T, heads, rank); latents (blocks, ...) as the cache's format keeps them; batch the record of ``_slices``,
    shape that of ``_latent_shape``; scratch (parts, bytes that shape says). A piece is as many queries of a sequence as
    the format lets walk together. Sums in float32.
    """
    heads, sequences, groups = get_i64(shape + HEADS), sequences_of(batch), 0
    token_step = max(1, int(most_rows) // heads)
    for s in range(sequences):
        groups += (start_of(batch, s + 1) - start_of(batch, s) + token_step - 1) // token_step
    head_step = heads_of_piece(heads, groups, max(1, parts // PARTS), int(most_rows))
    work = (scratch + part * get_i64(shape + SCRATCH) + 63) // 64 * 64
    piece, turn = -1, turn_of(part, parts)
    for s in range(sequences):
        for t in range(start_of(batch, s), start_of(batch, s + 1), token_step):
            for h in range(0, heads, head_step):
                piece += 1
                if piece % parts == turn:
                    count = min(head_step, heads - h)
                    attend_piece(out, q_latent, q_rope, latents, batch, work, shape, s, t, h, count)


@parallel_kernel_per_dtype
def write_latents(
    latents: int,
    latent: int,
    key: int,
    batch: int,
    ld_latent: int,
    ld_key: int,
    rank: int,
    rope_dim: int,
    part: int,
    parts: int,
) -> None:
    """Store the latents and shared keys of a batch in the blocks of its sequences, split by tokens.

    latents[table[p // BLOCK], p % BLOCK] = (latent[t], key[t])

    Shapes: latent float32 (T, rank), token stride ld_latent; key float32 (T, rope_dim), ld_key; latents, batch as in
    ``latent_attention``. Rounded or quantized to the cache's type.
    """
    sequences = sequences_of(batch)
    total = start_of(batch, sequences)
    begin, end = part * total // parts, (part + 1) * total // parts
    for s in range(sequences):
        first, last, table = start_of(batch, s), start_of(batch, s + 1), table_of(batch, s)
        for t in range(max(first, begin), min(last, end)):
            at = past_of(batch, s) + t - first
            page = get_i32(table + 4 * (at // BLOCK))
            at_latent, at_key = latent + 4 * t * ld_latent, key + 4 * t * ld_key
            store_position(latents, page, at % BLOCK, at_latent, at_key, rank, rope_dim)
