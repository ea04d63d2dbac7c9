"""Attention over a paged cache: tiled online softmax, causal, grouped queries, sliding window.

Pieces of work are dealt to the parts in turn, and each walks the blocks of its sequence in order of position, so a
query's bits do not depend on what else is in the batch, how the prompt was cut or how many threads ran. How keys and
values lie in a block, and what is computed of them, is the business of the cache's format: ``_float_attention`` for
float32, float16 and bfloat16, ``quantized_attention`` for int8; where every query of int8 sees everything,
``_quantized_full_attention`` has a walk of its own.
"""

from __future__ import annotations

from pio.kernels import _float_attention as floats
from pio.kernels import quantized_attention as int8
from pio.kernels import quantized_cache
from pio.kernels._attention_shape import CAUSAL, GROUP, HEAD_DIM, KV_HEADS, SCRATCH, WINDOW
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels._slices import in_format, past_of, sequences_of, start_of, table_of, turn_of
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import LANES, get_i32, get_i64
from pio.kernels.sizes import BLOCK, PARTS, ROWS

begin_rows, put_queries = in_format(floats.begin_rows, int8.begin_rows), in_format(floats.put_queries, int8.put_queries)
take_block, finish_rows = in_format(floats.take_block, int8.take_block), in_format(floats.finish_rows, int8.finish_rows)
store_position = in_format(floats.store_position, quantized_cache.store_position)

# key/value heads of a piece: of floats, more than one would not stay in the first-level cache with what comes next
most_heads = PerDtype(lambda kind: ROWS if kind == "int8" else 1)


@kernel_per_dtype
def attend_piece(
    out: int, q: int, keys: int, values: int, batch: int, work: int, shape: int, s: int, t: int, kv: int, h: int,
    span: int,
) -> None:  # fmt: skip
    """Attend for a few tokens of a sequence, from t on, and for ``span`` key/value heads or, of one head, from query h.

    Shapes: as in ``attention``; work is scratch of the kernel's kind. What is computed together has at most ROWS rows:
    those of a key/value head one behind the other, token by token.
    """
    kv_heads, group, head_dim = get_i64(shape + KV_HEADS), get_i64(shape + GROUP), get_i64(shape + HEAD_DIM)
    first, last = start_of(batch, s), start_of(batch, s + 1)
    tokens, heads = min(max(1, ROWS // group), last - t), min(ROWS, group - h)
    position = past_of(batch, s) + t - first
    end, step = position + tokens, 4 * kv_heads * group * head_dim  # bytes from token to token
    length = 0 if get_i64(shape + CAUSAL) != 0 else past_of(batch, s) + last - first
    if length > 0:
        end = length
    begin_rows(work, span * tokens * heads, shape)
    for i in range(span * tokens):  # rows of a token and key/value head lie side by side
        place = (t + i % tokens) * step + 4 * ((kv + i // tokens) * group + h) * head_dim
        put_queries(work, i * heads, heads, q + place, shape)
    window, table = get_i64(shape + WINDOW), table_of(batch, s)
    oldest = max(0, position - window + 1) if window > 0 else 0
    for block in range(oldest // BLOCK, (end - 1) // BLOCK + 1):
        start = block * BLOCK
        page = get_i32(table + 4 * block) * kv_heads + kv
        after = get_i32(table + 4 * block + 4) * kv_heads + kv if start + BLOCK < end else page
        at, left = position - start, max(0, length - start)
        take_block(work, keys, values, page, after, at, left, tokens, heads, span, shape)
    for i in range(span * tokens):
        place = (t + i % tokens) * step + 4 * ((kv + i // tokens) * group + h) * head_dim
        finish_rows(out + place, work, i * heads, heads, shape)


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def attention(
    out: int, q: int, keys: int, values: int, batch: int, scratch: int, shape: int, part: int, parts: int
) -> None:
    """Attend for a batch of sequences over their paged caches, pieces of work dealt to the parts in turn.

    out[t, h] = softmax(scale * q[t, h] . keys[j], j <= position of t if causal, inside the window) @ values[j]

    Shapes: q, out float32 (T, kv_heads * group, head_dim); keys, values (blocks, kv_heads, ...) as the cache's format
    keeps them; batch the record of ``_slices``, shape that of ``_attention_shape``; scratch (parts, bytes that shape
    says). A piece is up to ROWS queries of a sequence: of several tokens and one key/value head, or of a few tokens and
    more heads, where the format lets them walk together. Sums in float32.
    """
    kv_heads, group = get_i64(shape + KV_HEADS), get_i64(shape + GROUP)
    sequences, threads = sequences_of(batch), max(1, parts // PARTS)
    work = (scratch + part * get_i64(shape + SCRATCH) + 63) // 64 * 64
    piece, turn = -1, turn_of(part, parts)
    for s in range(sequences):
        first, last = start_of(batch, s), start_of(batch, s + 1)
        token_step = max(1, min(ROWS // group, last - first))
        # what few tokens leave of the rows goes to further heads, as long as there is a piece for each thread
        span = max(1, min(int(most_heads), ROWS // (token_step * group), kv_heads * sequences // threads, kv_heads))
        for t in range(first, last, token_step):
            for kv in range(0, kv_heads, span):
                for h in range(0, group, ROWS):
                    piece += 1
                    if piece % parts == turn:
                        count = min(span, kv_heads - kv)
                        attend_piece(out, q, keys, values, batch, work, shape, s, t, kv, h, count)


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def write_cache(
    keys: int,
    values: int,
    k: int,
    v: int,
    batch: int,
    scratch: int,
    stride: int,
    kv_heads: int,
    head_dim: int,
    part: int,
    parts: int,
) -> None:
    """Store the keys and values of a batch in the blocks of its sequences; each part does some heads.

    keys[block, h, p % BLOCK] = k[t, h];  values[block, h, p % BLOCK] = v[t, h];  block = table[p // BLOCK]

    Shapes: k, v float32 (T, kv_heads, head_dim); keys, values, batch as in ``attention``; scratch (parts, stride)
    bytes. Rounded or quantized to the cache's type.
    """
    width, own = (head_dim + LANES - 1) // LANES * LANES, scratch + part * stride
    for s in range(sequences_of(batch)):
        first, last, table = start_of(batch, s), start_of(batch, s + 1), table_of(batch, s)
        for t in range(first, last):
            at = past_of(batch, s) + t - first
            page = get_i32(table + 4 * (at // BLOCK)) * kv_heads
            for h in range(part * kv_heads // parts, (part + 1) * kv_heads // parts):
                row = 4 * (t * kv_heads + h) * head_dim
                store_position(keys, values, page + h, at % BLOCK, own, k + row, v + row, head_dim, width)
