"""Attention over int8 in which every query sees all of its sequence, as patches of a picture do.

Keys and values lie as ``quantized_cache`` says. Nothing depends on which position a query is at, so it takes several
cache blocks at once: its largest score, its probabilities' scale and what that does to its sums come once for SPAN
blocks, which leaves more of the time to products. A query's bits depend on its sequence alone.
"""

from __future__ import annotations

import math

from pio.kernels._attention_shape import GROUP, HEAD_DIM, KV_HEADS, SCALE, SCRATCH, width_of
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import RECORD, START
from pio.kernels._jit import kernel
from pio.kernels._rows import fill_f32, scale_row
from pio.kernels._slices import past_of, sequences_of, start_of, table_of, turn_of
from pio.kernels.parallel import parallel_kernel
from pio.kernels.quantize import quantize_row
from pio.kernels.quantized_attention import (
    HALVES,
    LARGEST,
    SMALLEST,
    add_values,
    advance,
    max_rows,
    pairs_of,
    scores_eight,
    scores_four,
    scores_one,
)
from pio.kernels.simd import (
    LANES,
    exp,
    fma,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    keep,
    load_f32,
    maximum,
    put_f32,
    put_i64,
    splat,
    store_f32,
    store_u8,
    sum_lanes,
)
from pio.kernels.sizes import BLOCK, CHANCE, KEY_PAIR, PARTS, ROWS, SPAN

WIDE_ROW = 4 * SPAN * BLOCK  # bytes of a query's scores
quantize_row_int8 = quantize_row["int8"]


@kernel
def span_scores(scores: int, q: int, addresses: int, blocks: int, rows: int, pairs: int) -> None:
    """Multiply quantized queries by the keys of some cache blocks.

    scores[r, BLOCK b + j] = q[r] . keys[b][j]

    Shapes: scores float32 (rows, SPAN * BLOCK); q (rows, 16 + 80 pairs) bytes; addresses int64 (2, SPAN), of keys and
    of values of each block.
    """
    row, half, wide = START + pairs * RECORD, pairs * KEY_PAIR, SPAN * BLOCK
    for b in range(blocks):
        keys = get_i64(addresses + 8 * b)
        for j in range(HALVES):
            at, at_keys, r = scores + 4 * (b * BLOCK + OUTPUTS * j), keys + j * half, 0
            while r + 8 <= rows:
                scores_eight(at + r * WIDE_ROW, q + r * row, at_keys, pairs, wide, OUTPUTS, 0)
                r += 8
            while r + 4 <= rows:
                scores_four(at + r * WIDE_ROW, q + r * row, at_keys, pairs, wide, OUTPUTS, 0)
                r += 4
            while r < rows:
                scores_one(at + r * WIDE_ROW, q + r * row, at_keys, pairs, wide, OUTPUTS, 0)
                r += 1


@kernel
def hide_tail(scores: int, rows: int, first: int, last: int) -> None:
    """Make the scores of a block's positions that are not there -inf.

    Shapes: scores float32 (rows, SPAN * BLOCK); the block begins at ``first`` and has ``last`` positions.
    """
    for r in range(rows):
        at = scores + r * WIDE_ROW + 4 * first
        store_f32(at, keep(load_f32(at), 0, last, -math.inf))
        store_f32(at + 4 * LANES, keep(load_f32(at + 4 * LANES), -LANES, last - LANES, -math.inf))


@kernel
def span_maxima(state: int, scores: int, peaks: int, rows: int, positions: int) -> None:
    """Find the largest of the scores of each query.

    Shapes: scores float32 (rows, SPAN * BLOCK), of which ``positions`` count, a multiple of BLOCK; peaks float32 (ROWS,
    16), scratch; state as in ``quantized_attention.advance``.
    """
    for r in range(rows):
        at = scores + r * WIDE_ROW
        most = load_f32(at)
        for i in range(4 * LANES, 4 * positions, 4 * LANES):
            most = maximum(most, load_f32(at + i))
        store_f32(peaks + 4 * r * LANES, most)
    store_f32(state + 4 * ROWS, max_rows(peaks))


@kernel
def shrink_rows(acc: int, sums: int, state: int, rows: int, width: int) -> None:
    """Multiply what was summed so far by what a larger score leaves of it.

    Shapes: acc float32 (rows, width); sums float32 (rows, 16); state as in ``quantized_attention.advance``.
    """
    for r in range(rows):
        shrink = get_f32(state + 8 * ROWS + 4 * r)
        if shrink != 1.0:
            scale_row(acc + 4 * r * width, acc + 4 * r * width, width, shrink)
            at = sums + 4 * r * LANES
            store_f32(at, load_f32(at) * splat(shrink))


@kernel
def weigh_span(
    scores: int, sums: int, peaks: int, state: int, addresses: int, blocks: int, rows: int, width: int, last: int
) -> None:
    """Take scores into the sums of all queries; they become probabilities times the scales of values.

    p = exp(scores - block); sums += grow * p; scores = p * scales; peaks = the largest of each lane

    Shapes: as above; ``last`` positions of the last block are there.
    """
    for r in range(rows):
        base, at = splat(get_f32(state + 4 * ROWS + 4 * r)), scores + r * WIDE_ROW
        total, peak = splat(0.0), splat(0.0)
        for b in range(blocks):
            scales, place = get_i64(addresses + 8 * (SPAN + b)) + BLOCK * width, at + 4 * b * BLOCK
            low, high = exp(load_f32(place) - base), exp(load_f32(place + 4 * LANES) - base)
            total = total + low + high
            low, high = low * load_f32(scales), high * load_f32(scales + 4 * LANES)
            if b == blocks - 1 and last < BLOCK:  # scales of positions that are not there may be anything
                low, high = keep(low, 0, last, 0.0), keep(high, -LANES, last - LANES, 0.0)
            store_f32(place, low)
            store_f32(place + 4 * LANES, high)
            peak = maximum(peak, maximum(low, high))
        at_sums = sums + 4 * r * LANES
        store_f32(at_sums, fma(total, splat(get_f32(state + 12 * ROWS + 4 * r)), load_f32(at_sums)))
        store_f32(peaks + 4 * r * LANES, peak)


@kernel
def bad_scale(addresses: int, blocks: int, width: int, last: int) -> float:
    """Return 0, or NaN where the scale of a value that is there is no number.

    Shapes: as in ``span_scores``.
    """
    total = splat(0.0)
    for b in range(blocks):
        scales, count = get_i64(addresses + 8 * (SPAN + b)) + BLOCK * width, last if b == blocks - 1 else BLOCK
        low = keep(load_f32(scales), 0, count, 0.0)
        high = keep(load_f32(scales + 4 * LANES), -LANES, count - LANES, 0.0)
        total = total + (low - low) + (high - high)
    return sum_lanes(total)


@kernel
def quantize_span(chances: int, scores: int, peaks: int, state: int, blocks: int, rows: int, bad: float) -> None:
    """Quantize what ``weigh_span`` left of all queries, each by its own largest: 0 to 127, and a scale.

    c = round(127 x / max x), scaled by grow * max x / 127

    Shapes: chances (SPAN, ROWS, 48) bytes; scores float32 (rows, SPAN * BLOCK); peaks float32 (ROWS, 16), overwritten;
    state as in ``quantized_attention.advance``.
    """
    most, grow = max_rows(peaks), load_f32(state + 12 * ROWS)
    store_f32(peaks, splat(LARGEST) / maximum(most, splat(SMALLEST)))
    store_f32(peaks + 4 * LANES, grow * (most + splat(bad)) * splat(1.0 / LARGEST))
    for r in range(rows):
        factor, scale = splat(get_f32(peaks + 4 * r)), get_f32(peaks + 4 * (LANES + r))
        for b in range(blocks):
            place, at = chances + CHANCE * (b * ROWS + r), scores + r * WIDE_ROW + 4 * b * BLOCK
            store_u8(place, load_f32(at) * factor)
            store_u8(place + LANES, load_f32(at + 4 * LANES) * factor)
            put_f32(place + BLOCK, scale)


@kernel
def attend_piece(
    out: int, q: int, keys: int, values: int, batch: int, work: int, shape: int, s: int, t: int, kv: int, h: int
) -> None:
    """Attend for a few tokens of a sequence, from t on, and for the queries of a key/value head, from h on.

    Shapes: as in ``full_attention``; work (int8_full_attention_bytes,) bytes: addresses, outputs float32 (ROWS, width),
    scores float32 (ROWS, SPAN * BLOCK), probabilities (SPAN, ROWS, 48) bytes, queries, the state of
    ``quantized_attention.advance``, sums and largest probabilities float32 (ROWS, 16) each, and a scaled query.
    """
    kv_heads, group, head_dim = get_i64(shape + KV_HEADS), get_i64(shape + GROUP), get_i64(shape + HEAD_DIM)
    pairs, width = pairs_of(shape), width_of(shape)
    record, key_step, value_step = START + pairs * RECORD, HALVES * pairs * KEY_PAIR, BLOCK * width + 4 * BLOCK
    first, last = start_of(batch, s), start_of(batch, s + 1)
    tokens, heads = min(max(1, ROWS // group), last - t), min(ROWS, group - h)
    rows, length, table = tokens * heads, past_of(batch, s) + last - first, table_of(batch, s)
    addresses = work
    acc = addresses + 16 * SPAN
    scores = acc + 4 * ROWS * width
    chances = scores + ROWS * WIDE_ROW
    queries = chances + SPAN * ROWS * CHANCE
    state = queries + ROWS * record
    sums = state + 4 * 5 * ROWS
    peaks = sums + 4 * ROWS * LANES
    scaled = peaks + 4 * ROWS * LANES
    fill_f32(acc, rows * width, 0.0)
    fill_f32(sums, 2 * ROWS * LANES, 0.0)
    fill_f32(state, 2 * ROWS, -math.inf)
    for r in range(rows):
        place = q + 4 * head_dim * (((t + r // heads) * kv_heads + kv) * group + h + r % heads)
        scale_row(scaled, place, head_dim, get_f64(shape + SCALE))
        quantize_row_int8(queries + r * record, scaled, head_dim)
    for begin in range(0, length, SPAN * BLOCK):
        blocks = min(SPAN, (length - begin + BLOCK - 1) // BLOCK)
        there = min(BLOCK, length - begin - (blocks - 1) * BLOCK)  # positions of the last of them
        for b in range(blocks):
            page = get_i32(table + 4 * (begin // BLOCK + b)) * kv_heads + kv
            put_i64(addresses + 8 * b, keys + page * key_step)
            put_i64(addresses + 8 * (SPAN + b), values + page * value_step)
        span_scores(scores, queries, addresses, blocks, rows, pairs)
        if there < BLOCK:
            hide_tail(scores, rows, (blocks - 1) * BLOCK, there)
        span_maxima(state, scores, peaks, rows, blocks * BLOCK)
        advance(state)
        shrink_rows(acc, sums, state, rows, width)
        weigh_span(scores, sums, peaks, state, addresses, blocks, rows, width, there)
        quantize_span(chances, scores, peaks, state, blocks, rows, bad_scale(addresses, blocks, width, there))
        for b in range(blocks):
            add_values(acc, chances + CHANCE * ROWS * b, get_i64(addresses + 8 * (SPAN + b)), rows, width)
    for r in range(rows):
        place = out + 4 * head_dim * (((t + r // heads) * kv_heads + kv) * group + h + r % heads)
        total = sum_lanes(load_f32(sums + 4 * r * LANES))  # zero where all scores are below every number
        scale_row(place, acc + 4 * r * width, head_dim, 1.0 / total if total != 0.0 else math.nan)


@parallel_kernel(parts_per_thread=PARTS)
def full_attention(
    out: int, q: int, keys: int, values: int, batch: int, scratch: int, shape: int, part: int, parts: int
) -> None:
    """Attend for a batch of sequences, of which every token sees every position, pieces dealt to the parts in turn.

    out[t, h] = softmax(scale * q[t, h] . keys[j], all j of the sequence) @ values[j]

    Shapes: as in ``attention.attention``, of int8. A piece is up to ROWS queries of a key/value head.
    """
    kv_heads, group = get_i64(shape + KV_HEADS), get_i64(shape + GROUP)
    work = (scratch + part * get_i64(shape + SCRATCH) + 63) // 64 * 64
    piece, turn, step = -1, turn_of(part, parts), max(1, ROWS // group)
    for s in range(sequences_of(batch)):
        for kv in range(kv_heads):  # before tokens: what all of them read stays in the second-level cache
            for t in range(start_of(batch, s), start_of(batch, s + 1), step):
                for h in range(0, group, ROWS):
                    piece += 1
                    if piece % parts == turn:
                        attend_piece(out, q, keys, values, batch, work, shape, s, t, kv, h)
