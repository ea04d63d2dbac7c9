"""Attention over a paged cache of int8: integer dot products for scores and for values.

Keys and values lie as ``quantized_cache`` says. The scales of values go into the probabilities, which are quantized to
0..127 by query and block. Blocks are walked in order of position, so a query's bits do not depend on what else is in
the batch, how the prompt was cut or how many threads ran.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import math
from typing import Any, Final

from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import PAIR, RECORD, START
from pio.kernels._jit import kernel
from pio.kernels.attention import FEW, fill_f32, scale_row, turn_of
from pio.kernels.parallel import parallel_kernel
from pio.kernels.quantize import quantize_row
from pio.kernels.quantized_cache import LARGEST, SMALLEST
from pio.kernels.quantized_tiles import quantized_tile, values_tile
from pio.kernels.simd import (
    LANES,
    VEC,
    Vec,
    exp,
    fma,
    get_f32,
    get_i32,
    int64,
    keep,
    load_f32,
    max_lanes,
    maximum,
    primitive,
    put_f32,
    splat,
    store_f32,
    store_u8,
    sum_lanes,
)
from pio.kernels.sizes import BLOCK, CHANCE, KEY_PAIR, PARTS, ROWS
from pio.kernels.tiles import prefetch

LEAST: Final = -3e38  # below every score that counts, and finite: it can be subtracted from -inf

quantize_row_int8 = quantize_row["int8"]
scores_eight, scores_four, scores_one = (quantized_tile(rows)["int8"] for rows in (8, 4, 1))
values_eight, values_four, values_one = values_tile(8), values_tile(4), values_tile(1)


def _emit_max_rows(b: Any, address: Any) -> Any:
    rows = [ll.load_as(b, ll.at(b, address, (4 * LANES, r)), "float32") for r in range(LANES)]
    return ll.fold_all(b, rows, lambda x, y: ll.maximum(b, x, y))[0]


@primitive(VEC, int64, emit=_emit_max_rows)
def max_rows(address: int) -> Vec:
    """The largest of each of sixteen rows of sixteen numbers: lane r of the result is that of row r."""
    return Vec(max_lanes(load_f32(address + 4 * LANES * r)) for r in range(LANES))


@kernel
def score_rows(scores: int, q: int, keys: int, rows: int, pairs: int) -> None:
    """Multiply quantized queries by a cache block's keys.

    scores[r, j] = q[r] . keys[j]

    Shapes: scores float32 (rows, BLOCK); q (rows, 16 + 80 pairs) bytes; keys (2, pairs, 1088) bytes. Sums as in
    ``quantized_tiles``.
    """
    row, half = START + pairs * RECORD, pairs * KEY_PAIR
    for j in range(BLOCK // OUTPUTS):
        at, at_keys, r = scores + 4 * OUTPUTS * j, keys + j * half, 0
        while r + 8 <= rows:
            scores_eight(at + 4 * r * BLOCK, q + r * row, at_keys, pairs, BLOCK, OUTPUTS, 0)
            r += 8
        while r + 4 <= rows:
            scores_four(at + 4 * r * BLOCK, q + r * row, at_keys, pairs, BLOCK, OUTPUTS, 0)
            r += 4
        while r < rows:
            scores_one(at + 4 * r * BLOCK, q + r * row, at_keys, pairs, BLOCK, OUTPUTS, 0)
            r += 1


@kernel
def add_values(acc: int, chances: int, values: int, rows: int, width: int) -> None:
    """Add a cache block's values, weighted by quantized probabilities.

    acc[r] += sum_j p[r, j] * values[j]

    Shapes: acc float32 (rows, width); chances (rows, 48) bytes; values (8, width, 4) bytes. Exact sums within a block.
    """
    r = 0
    while r + 8 <= rows:
        values_eight(acc + 4 * r * width, chances + CHANCE * r, values, width)
        r += 8
    while r + 4 <= rows:
        values_four(acc + 4 * r * width, chances + CHANCE * r, values, width)
        r += 4
    while r < rows:
        values_one(acc + 4 * r * width, chances + CHANCE * r, values, width)
        r += 1


@kernel
def block_maxima(
    maxima: int, scores: int, at: int, length: int, window: int, span: int, tokens: int, heads: int
) -> None:
    """Find the largest of a block's scores for each query, -inf where it sees none; what it does not see becomes -inf.

    Shapes: scores float32 (span * tokens * heads, BLOCK); maxima float32 (ROWS,); at is how far the first token's
    position is behind the block's first, length likewise, where that is not 0.
    """
    r = 0
    for _ in range(span):
        for t in range(tokens):
            first = max(0, at + t - window + 1) if window > 0 else 0
            last = min(BLOCK, length if length > 0 else at + t + 1)
            for _ in range(heads):
                place = scores + 4 * r * BLOCK
                low, high = load_f32(place), load_f32(place + 4 * LANES)
                if first > 0 or last < BLOCK:
                    low, high = keep(low, first, last, -math.inf), keep(high, first - LANES, last - LANES, -math.inf)
                    store_f32(place, low)
                    store_f32(place + 4 * LANES, high)
                put_f32(maxima + 4 * r, max_lanes(maximum(low, high)))
                r += 1


@kernel
def advance(state: int) -> None:
    """Let the running maxima of all queries see those of a block.

    m' = max(m, block); shrink = exp(m - m'), what was summed so far counts by; grow = exp(block - m'), the block does

    Shapes: state float32 (5, ROWS): m, block, shrink, grow, and tops as in ``weigh_rows``. A block that has nothing to
    see is given LEAST: its probabilities must not be those of -inf - -inf.
    """
    old, block, least = load_f32(state), load_f32(state + 4 * ROWS), splat(LEAST)
    new = maximum(old, block)
    base = maximum(new, least)  # before a query's first visible position both are -inf, which leaves nothing to scale
    store_f32(state, new)
    store_f32(state + 4 * ROWS, maximum(block, least))
    store_f32(state + 8 * ROWS, exp(old - base))
    store_f32(state + 12 * ROWS, exp(block - base))


@kernel
def largest_scale(scales: int, first: int, last: int) -> float:
    """Return the largest scale of a block's values, of those that a query sees; NaN if one of them is.

    Shapes: scales float32 (BLOCK,), of which first <= j < last count.
    """
    low = keep(load_f32(scales), first, last, 0.0)
    high = keep(load_f32(scales + 4 * LANES), first - LANES, last - LANES, 0.0)
    return max_lanes(maximum(low, high)) + sum_lanes((low - low) + (high - high))


@kernel
def weigh_row(scores: int, scales: int, sums: int, peaks: int, state: int, first: int, last: int) -> None:
    """Take a block's scores into a query's sum; they become probabilities times values' scales.

    p = exp(scores - block); sums += grow * p; scores = p * scales; peaks = the larger ones of both halves

    Shapes: scores, scales float32 (BLOCK,), of which first <= j < last count; sums, peaks float32 (16,), lane by lane;
    state as in ``advance``, offset to the query's column.
    """
    base = splat(get_f32(state + 4 * ROWS))
    low, high = exp(load_f32(scores) - base), exp(load_f32(scores + 4 * LANES) - base)
    store_f32(sums, fma(low + high, splat(get_f32(state + 12 * ROWS)), load_f32(sums)))
    low, high = low * load_f32(scales), high * load_f32(scales + 4 * LANES)
    if first > 0 or last < BLOCK:  # scales of positions that are not written yet may be anything
        low, high = keep(low, first, last, 0.0), keep(high, first - LANES, last - LANES, 0.0)
    store_f32(scores, low)
    store_f32(scores + 4 * LANES, high)
    store_f32(peaks, maximum(low, high))


@kernel
def weigh_rows(
    scores: int,
    acc: int,
    sums: int,
    peaks: int,
    state: int,
    scales: int,
    at: int,
    length: int,
    window: int,
    tokens: int,
    heads: int,
    width: int,
) -> None:
    """Take a block's scores into the sums of one key/value head's queries, after shrinking what was summed so far.

    Shapes: as in ``weigh_row`` and ``attend_rows_int8``, offset to the head's first row; at, length, window as in
    ``block_maxima``. Leaves the largest of the scales that a query sees in the last row of state.
    """
    whole, r = largest_scale(scales, 0, BLOCK), 0
    for t in range(tokens):
        first = max(0, at + t - window + 1) if window > 0 else 0
        last = min(BLOCK, length if length > 0 else at + t + 1)
        top = whole if first == 0 and last == BLOCK else largest_scale(scales, first, last)
        for _ in range(heads):
            column, at_sums = state + 4 * r, sums + 4 * r * LANES
            shrink = get_f32(column + 8 * ROWS)
            if shrink != 1.0:
                scale_row(acc + 4 * r * width, acc + 4 * r * width, width, shrink)
                store_f32(at_sums, load_f32(at_sums) * splat(shrink))
            put_f32(column + 16 * ROWS, top)
            weigh_row(scores + 4 * r * BLOCK, scales, at_sums, peaks + 4 * r * LANES, column, first, last)
            r += 1


@kernel
def quantize_chances(chances: int, scores: int, peaks: int, state: int, rows: int) -> None:
    """Quantize what ``weigh_rows`` left of all queries, each by its own largest: 0 to 127, and a scale.

    c = round(127 x / max x), scaled by grow * max x / 127. A sink of attention often has next to no value: it must not
    take the steps of all others.

    Shapes: chances (rows, 48) bytes; scores float32 (rows, BLOCK); peaks float32 (ROWS, 16), overwritten; state as in
    ``advance``. A scale is NaN where a top is.
    """
    most, top, grow = max_rows(peaks), load_f32(state + 16 * ROWS), load_f32(state + 12 * ROWS)
    store_f32(peaks, splat(LARGEST) / maximum(most, splat(SMALLEST)))
    store_f32(peaks + 4 * LANES, grow * (most + (top - top)) * splat(1.0 / LARGEST))
    for r in range(rows):
        place, at, factor = chances + CHANCE * r, scores + 4 * r * BLOCK, splat(get_f32(peaks + 4 * r))
        store_u8(place, load_f32(at) * factor)
        store_u8(place + LANES, load_f32(at + 4 * LANES) * factor)
        put_f32(place + BLOCK, get_f32(peaks + 4 * (LANES + r)))


@kernel
def attend_rows_int8(
    out: int,
    q: int,
    keys: int,
    values: int,
    table: int,
    scratch: int,
    position: int,
    tokens: int,
    length: int,
    heads: int,
    span: int,
    ldq: int,
    ldo: int,
    kv_heads: int,
    head_dim: int,
    width: int,
    window: int,
    scale: float,
) -> None:
    """Attend for a few key/value heads: a few tokens of one sequence and a few query heads of each group.

    out[t, h] = softmax(scale * q[t, h] . keys[j] for j <= position + t (j < length where that is not 0),
    position + t - window < j) @ values[j]

    Shapes: q float32 (tokens, span * heads, head_dim), token stride ldq; out likewise, token stride ldo; keys (blocks,
    kv_heads, key_bytes) and values (blocks, kv_heads, value_bytes), offset to the first of ``span`` heads; table int32
    (blocks of the sequence,); scratch (scratch_bytes,). tokens * span * heads <= ROWS. Window 0 is none. Length 0 is
    causal. Sums in float32, blocks in order of position.
    """
    per, pairs = tokens * heads, (head_dim + PAIR - 1) // PAIR  # rows of a key/value head, one behind the other
    rows, record = span * per, START + pairs * RECORD
    acc = (scratch + 63) // 64 * 64
    scores = acc + 4 * ROWS * width
    chances = scores + 4 * ROWS * BLOCK
    queries = chances + ROWS * CHANCE
    state = queries + ROWS * record  # (5, ROWS)
    sums = state + 4 * 5 * ROWS  # (ROWS, 16)
    peaks = sums + 4 * ROWS * LANES  # (ROWS, 16)
    scaled = peaks + 4 * ROWS * LANES
    for r in range(rows):
        head = r // per * heads + r % heads
        scale_row(scaled, q + 4 * (r % per // heads * ldq + head * head_dim), head_dim, scale)
        quantize_row_int8(queries + r * record, scaled, head_dim)
    fill_f32(acc, rows * width, 0.0)
    fill_f32(sums, ROWS * LANES, 0.0)
    fill_f32(state, 2 * ROWS, -math.inf)
    key_step, value_step = BLOCK // OUTPUTS * pairs * KEY_PAIR, BLOCK * width + 4 * BLOCK
    oldest = max(0, position - window + 1) if window > 0 else 0
    end = length if length > 0 else position + tokens
    for block in range(oldest // BLOCK, (end - 1) // BLOCK + 1):
        page, at = get_i32(table + 4 * block) * kv_heads, position - block * BLOCK
        left = max(0, length - block * BLOCK)
        follows = block * BLOCK + BLOCK < end
        after = get_i32(table + 4 * block + 4) * kv_heads if follows else page
        for i in range(span):  # the heads of a block lie side by side: one stream of memory
            first = i * per
            if per < FEW:
                prefetch(keys + (page + i + 1 if i + 1 < span else after) * key_step, key_step)
            score_rows(scores + 4 * first * BLOCK, queries + first * record, keys + (page + i) * key_step, per, pairs)
        block_maxima(state + 4 * ROWS, scores, at, left, window, span, tokens, heads)
        advance(state)
        for i in range(span):
            first, at_values = i * per, values + (page + i) * value_step
            if per < FEW:
                prefetch(values + (page + i + 1 if i + 1 < span else after) * value_step, value_step)
            weigh_rows(
                scores + 4 * first * BLOCK,
                acc + 4 * first * width,
                sums + 4 * first * LANES,
                peaks,
                state + 4 * first,
                at_values + BLOCK * width,
                at,
                left,
                window,
                tokens,
                heads,
                width,
            )
            here = chances + CHANCE * first
            quantize_chances(here, scores + 4 * first * BLOCK, peaks, state + 4 * first, per)
            add_values(acc + 4 * first * width, here, at_values, per, width)
    for r in range(rows):
        place = out + 4 * (r % per // heads * ldo + (r // per * heads + r % heads) * head_dim)
        total = sum_lanes(load_f32(sums + 4 * r * LANES))  # zero where all scores are below every number
        scale_row(place, acc + 4 * r * width, head_dim, 1.0 / total if total != 0.0 else math.nan)


@parallel_kernel(parts_per_thread=PARTS)
def quantized_attention(
    out: int,
    q: int,
    keys: int,
    values: int,
    tables: int,
    starts: int,
    past: int,
    scratch: int,
    scratch_stride: int,
    sequences: int,
    ldq: int,
    ldt: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    width: int,
    causal: int,
    window: int,
    scale: float,
    part: int,
    parts: int,
) -> None:
    """Attend for a batch of sequences over their paged caches of int8, pieces of work dealt to the parts in turn.

    out[t, h] = softmax(scale * q[t, h] . keys[j], j <= position of t if causal, inside the window) @ values[j]

    Shapes: q float32 (T, kv_heads * group, head_dim), token stride ldq; out float32 (T, kv_heads * group, head_dim);
    keys (blocks, kv_heads, key_bytes); values (blocks, kv_heads, value_bytes), width = head_dim rounded up to 16;
    tables int32 (S, ldt); starts int32 (S + 1,); past int32 (S,); scratch (parts, scratch_stride) bytes. A piece is up
    to ROWS queries of a sequence: of several tokens and one key/value head, or of a few tokens and more heads. Window 0
    is none. Sums in float32.
    """
    heads, threads = kv_heads * group, max(1, parts // PARTS)
    key_step = BLOCK // OUTPUTS * ((head_dim + PAIR - 1) // PAIR) * KEY_PAIR
    piece, turn = -1, turn_of(part, parts)
    for s in range(sequences):
        first, last, before = get_i32(starts + 4 * s), get_i32(starts + 4 * s + 4), get_i32(past + 4 * s)
        token_step, head_step = min(max(1, ROWS // group), last - first), min(group, ROWS)
        # what few tokens leave of the rows goes to further heads, as long as there is a piece for each thread
        span = max(1, min(ROWS // (token_step * group), kv_heads * sequences // threads, kv_heads))
        for t in range(first, last, token_step):
            for kv in range(0, kv_heads, span):
                for h in range(0, group, head_step):
                    piece += 1
                    if piece % parts != turn:
                        continue
                    attend_rows_int8(
                        out + 4 * (t * heads + kv * group + h) * head_dim,
                        q + 4 * (t * ldq + (kv * group + h) * head_dim),
                        keys + kv * key_step,
                        values + kv * (BLOCK * width + 4 * BLOCK),
                        tables + 4 * s * ldt,
                        scratch + part * scratch_stride,
                        before + t - first,
                        min(token_step, last - t),
                        0 if causal else before + last - first,
                        min(head_step, group - h),
                        min(span, kv_heads - kv),
                        ldq,
                        heads * head_dim,
                        kv_heads,
                        head_dim,
                        width,
                        window,
                        scale,
                    )
