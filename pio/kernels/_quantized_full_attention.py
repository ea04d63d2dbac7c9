"""Attention over int8 in which every query sees all of its sequence, as patches of a picture do.

Keys and values lie as ``quantized_cache`` says. Nothing depends on which position a query is at, so it takes several
cache blocks at once: its largest score, its probabilities' scale and what that does to its sums come once for SPAN
blocks, which leaves more of the time to products. A query's bits depend on its sequence alone.
"""

from __future__ import annotations

import math

from pio.kernels._amx_attention import begin_sixteen, end_sixteen, scores_tile, start_scores, weighted_tile
from pio.kernels._attention_shape import GROUP, HEAD_DIM, KV_HEADS, SCALE, SCRATCH, width_of
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import RECORD, START
from pio.kernels._jit import kernel
from pio.kernels._llvm import LINE
from pio.kernels._paired_scores import paired_scores
from pio.kernels._rows import fill_f32, scale_row
from pio.kernels._slices import past_of, sequences_of, start_of, table_of
from pio.kernels.exponential import coarse_exp
from pio.kernels.parallel import parallel_kernel
from pio.kernels.quantize import quantize_row
from pio.kernels.quantized_attention import (
    HALVES,
    LARGEST,
    SMALLEST,
    advance,
    max_rows,
    pairs_of,
)
from pio.kernels.quantized_tiles import PAIRED, quantized_tile
from pio.kernels.simd import (
    LANES,
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
from pio.kernels.sizes import AMX, BLOCK, KEY_PAIR, PARTS, ROWS, SPAN, SPAN_CHANCE, STARTS
from pio.kernels.tiles import prefetch, prefetch_near
from pio.kernels.values_tiles import span_tile

WIDE_ROW = 4 * SPAN * BLOCK  # bytes of a query's scores
NEAR = PAIRED and not AMX  # whether tiles are so fast that they would wait for the second-level cache
quantize_row_int8 = quantize_row["int8"]
# blocks of a cache lie anywhere: the next ones are asked for by name
scores_eight, scores_four, scores_one = (quantized_tile(rows, ahead=False)["int8"] for rows in (8, 4, 1))
span_eight, span_four, span_one = span_tile(8), span_tile(4), span_tile(1)
sixteen_scores, sixteen_values = scores_tile(WIDE_ROW), weighted_tile(SPAN, SPAN_CHANCE, shrinks=True)


@kernel
def span_scores(scores: int, q: int, addresses: int, starts: int, blocks: int, rows: int, pairs: int) -> None:
    """Multiply quantized queries by the keys of some cache blocks.

    scores[r, BLOCK b + j] = q[r] . keys[b][j]

    Shapes: scores float32 (rows, SPAN * BLOCK); q (rows, 16 + 80 pairs) bytes; addresses int64 (4, SPAN): of keys and
    of values of each block, and of those that are met next, which are asked for a piece at a time. All at once they
    would keep the processor from reading anything else. starts as ``start_scores`` has left them for ROWS queries.
    """
    row, half, wide, done = START + pairs * RECORD, pairs * KEY_PAIR, SPAN * BLOCK, 0
    if AMX:
        if rows == ROWS:
            sixteen_scores(scores, q, addresses, starts, blocks, pairs)
            done = ROWS
    for b in range(blocks):
        keys = get_i64(addresses + 8 * b)
        if PAIRED:
            if done == 0:
                ahead = get_i64(addresses + 8 * (b + 1 if b + 1 < blocks else 2 * SPAN))
                paired_scores(scores + 4 * b * BLOCK, q, keys, rows, pairs, wide, ahead)
                continue
        for j in range(HALVES):
            at, at_keys, r = scores + 4 * (b * BLOCK + OUTPUTS * j), keys + j * half, done
            prefetch(get_i64(addresses + 8 * (2 * SPAN + b)) + j * half, half)
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
def weigh_span(
    scores: int, sums: int, peaks: int, state: int, addresses: int, blocks: int, rows: int, width: int, last: int
) -> None:
    """Take scores into the sums of all queries; they become probabilities times the scales of values.

    p = exp(scores - block); sums = shrink * sums + grow * p; scores = p * scales; peaks = the largest of each lane

    Shapes: as in ``span_scores``; ``last`` positions of the last block are there.
    """
    share = (BLOCK * width // rows + LINE - 1) // LINE * LINE  # of a block's values, what is asked for with each row
    for r in range(rows):
        base, at = splat(get_f32(state + 4 * ROWS + 4 * r)), scores + r * WIDE_ROW
        total, peak = splat(0.0), splat(0.0)
        for b in range(blocks):
            scales, place = get_i64(addresses + 8 * (SPAN + b)) + BLOCK * width, at + 4 * b * BLOCK
            if NEAR:
                prefetch_near(get_i64(addresses + 8 * (SPAN + b)) + r * share, share)
            else:
                prefetch(get_i64(addresses + 8 * (3 * SPAN + b)) + r * share, share)
            low, high = coarse_exp(load_f32(place) - base), coarse_exp(load_f32(place + 4 * LANES) - base)
            total = total + low + high
            low, high = low * load_f32(scales), high * load_f32(scales + 4 * LANES)
            if b == blocks - 1 and last < BLOCK:  # scales of positions that are not there may be anything
                low, high = keep(low, 0, last, 0.0), keep(high, -LANES, last - LANES, 0.0)
            store_f32(place, low)
            store_f32(place + 4 * LANES, high)
            peak = maximum(peak, maximum(low, high))
        at_sums, shrink = sums + 4 * r * LANES, splat(get_f32(state + 8 * ROWS + 4 * r))
        store_f32(at_sums, fma(total, splat(get_f32(state + 12 * ROWS + 4 * r)), load_f32(at_sums) * shrink))
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
    """Quantize what ``weigh_span`` left of all queries, each by its own largest: 0 to 127, a scale, and shrink.

    c = round(127 x / max x), scaled by grow * max x / 127

    Shapes: chances (rows, SPAN_CHANCE) bytes; scores float32 (rows, SPAN * BLOCK); peaks float32 (ROWS, 16),
    overwritten; state as in ``quantized_attention.advance``.
    """
    most, grow = max_rows(peaks), load_f32(state + 12 * ROWS)
    store_f32(peaks, splat(LARGEST) / maximum(most, splat(SMALLEST)))
    store_f32(peaks + 4 * LANES, grow * (most + splat(bad)) * splat(1.0 / LARGEST))
    for r in range(rows):
        place, at, factor = chances + SPAN_CHANCE * r, scores + r * WIDE_ROW, splat(get_f32(peaks + 4 * r))
        for i in range(blocks * (BLOCK // LANES)):
            store_u8(place + LANES * i, load_f32(at + 4 * LANES * i) * factor)
        put_f32(place + SPAN * BLOCK, get_f32(peaks + 4 * (LANES + r)))
        put_f32(place + SPAN * BLOCK + 4, get_f32(state + 8 * ROWS + 4 * r))


@kernel
def add_span(acc: int, chances: int, addresses: int, blocks: int, rows: int, width: int) -> None:
    """Add the values of some cache blocks, weighted by quantized probabilities, to what a larger score leaves.

    acc[r] = shrink * acc[r] + sum_bj p[r, b, j] * values[b][j]

    Shapes: acc float32 (rows, width); chances as in ``quantize_span``; addresses int64 (blocks,). Exact sums within a
    span.
    """
    r = 0
    if AMX:
        if rows == ROWS:
            sixteen_values(acc, chances, addresses, blocks, width)
            r = ROWS
    while r + 8 <= rows:
        span_eight(acc + 4 * r * width, chances + SPAN_CHANCE * r, addresses, blocks, width)
        r += 8
    while r + 4 <= rows:
        span_four(acc + 4 * r * width, chances + SPAN_CHANCE * r, addresses, blocks, width)
        r += 4
    while r < rows:
        span_one(acc + 4 * r * width, chances + SPAN_CHANCE * r, addresses, blocks, width)
        r += 1


@kernel
def attend_piece(
    out: int, q: int, keys: int, values: int, batch: int, work: int, shape: int, s: int, t: int, kv: int, h: int
) -> None:
    """Attend for a few tokens of a sequence, from t on, and for the queries of a key/value head, from h on.

    Shapes: as in ``full_attention``; work (int8_full_attention_bytes,) bytes: addresses, outputs float32 (ROWS, width),
    scores float32 (ROWS, SPAN * BLOCK), probabilities (ROWS, SPAN_CHANCE) bytes, queries, the state of
    ``quantized_attention.advance``, sums and largest probabilities float32 (ROWS, 16) each, what integer sums start
    from where there is AMX, and a scaled query.
    """
    kv_heads, group, head_dim = get_i64(shape + KV_HEADS), get_i64(shape + GROUP), get_i64(shape + HEAD_DIM)
    pairs, width = pairs_of(shape), width_of(shape)
    record, key_step, value_step = START + pairs * RECORD, HALVES * pairs * KEY_PAIR, BLOCK * width + 4 * BLOCK
    first, last = start_of(batch, s), start_of(batch, s + 1)
    tokens, heads = min(max(1, ROWS // group), last - t), min(ROWS, group - h)
    rows, length, table = tokens * heads, past_of(batch, s) + last - first, table_of(batch, s)
    addresses = work
    acc = addresses + 32 * SPAN
    scores = acc + 4 * ROWS * width
    chances = scores + ROWS * WIDE_ROW
    queries = chances + ROWS * SPAN_CHANCE
    state = queries + ROWS * record
    sums = state + 4 * 5 * ROWS
    peaks = sums + 4 * ROWS * LANES
    starts = peaks + 4 * ROWS * LANES
    scaled = starts + pairs * STARTS
    for r in range(rows):  # rows of other heads lie between them: each would be waited for
        prefetch(q + 4 * head_dim * (((t + r // heads) * kv_heads + kv) * group + h + r % heads), 4 * head_dim)
    fill_f32(acc, rows * width, 0.0)
    fill_f32(sums, 2 * ROWS * LANES, 0.0)
    fill_f32(state, 2 * ROWS, -math.inf)
    for r in range(rows):
        place = q + 4 * head_dim * (((t + r // heads) * kv_heads + kv) * group + h + r % heads)
        scale_row(scaled, place, head_dim, get_f64(shape + SCALE))
        quantize_row_int8(queries + r * record, scaled, head_dim)
    if AMX:
        if rows == ROWS:
            start_scores(starts, queries, pairs)
    for begin in range(0, length, SPAN * BLOCK):
        blocks = min(SPAN, (length - begin + BLOCK - 1) // BLOCK)
        there = min(BLOCK, length - begin - (blocks - 1) * BLOCK)  # positions of the last of them
        for b in range(blocks):
            page = get_i32(table + 4 * (begin // BLOCK + b)) * kv_heads + kv
            put_i64(addresses + 8 * b, keys + page * key_step)
            put_i64(addresses + 8 * (SPAN + b), values + page * value_step)
            if begin + (SPAN + b) * BLOCK < length:
                page = get_i32(table + 4 * (begin // BLOCK + SPAN + b)) * kv_heads + kv
            put_i64(addresses + 8 * (2 * SPAN + b), keys + page * key_step)
            put_i64(addresses + 8 * (3 * SPAN + b), values + page * value_step)
        span_scores(scores, queries, addresses, starts, blocks, rows, pairs)
        if there < BLOCK:
            hide_tail(scores, rows, (blocks - 1) * BLOCK, there)
        span_maxima(state, scores, peaks, rows, blocks * BLOCK)
        advance(state)
        weigh_span(scores, sums, peaks, state, addresses, blocks, rows, width, there)
        quantize_span(chances, scores, peaks, state, blocks, rows, bad_scale(addresses, blocks, width, there))
        add_span(acc, chances, addresses + 8 * SPAN, blocks, rows, width)
    for r in range(rows):
        place = out + 4 * head_dim * (((t + r // heads) * kv_heads + kv) * group + h + r % heads)
        total = sum_lanes(load_f32(sums + 4 * r * LANES))  # zero where all scores are below every number
        scale_row(place, acc + 4 * r * width, head_dim, 1.0 / total if total != 0.0 else math.nan)


@kernel
def pieces_before(cost: int, each: int, pieces: int) -> int:
    """Return how many of a sequence's pieces begin before a cost, counted from where the sequence begins.

    Shapes: none; each is what a piece costs.
    """
    return min(max((cost + each - 1) // each, 0), pieces)


@kernel
def pieces_across(batch: int, s: int, shape: int) -> int:
    """Return into how many pieces the queries of a sequence and of one key/value head are cut.

    Shapes: batch and shape as in ``full_attention``.
    """
    group, tokens = get_i64(shape + GROUP), start_of(batch, s + 1) - start_of(batch, s)
    step = max(1, ROWS // group)
    return (tokens + step - 1) // step * ((group + ROWS - 1) // ROWS)


@kernel
def blocks_of(batch: int, s: int) -> int:
    """Return how many cache blocks each query of a sequence walks: what a piece of it costs.

    Shapes: batch as in ``full_attention``.
    """
    length = past_of(batch, s) + start_of(batch, s + 1) - start_of(batch, s)
    return max(1, (length + BLOCK - 1) // BLOCK)


@parallel_kernel(parts_per_thread=PARTS)
def full_attention(
    out: int, q: int, keys: int, values: int, batch: int, scratch: int, shape: int, part: int, parts: int
) -> None:
    """Attend for a batch of sequences, of which every token sees every position, split over threads by cost.

    out[t, h] = softmax(scale * q[t, h] . keys[j], all j of the sequence) @ values[j]

    Shapes: as in ``attention.attention``, of int8. A piece is up to ROWS queries of a key/value head. Those of a head
    are a part's own as far as can be: what all of them read stays in the second-level cache.
    """
    kv_heads, group = get_i64(shape + KV_HEADS), get_i64(shape + GROUP)
    work = (scratch + part * get_i64(shape + SCRATCH) + 63) // 64 * 64
    step, turns = max(1, ROWS // group), (group + ROWS - 1) // ROWS
    total = 0
    for s in range(sequences_of(batch)):
        total += blocks_of(batch, s) * kv_heads * pieces_across(batch, s, shape)
    low, high = part * total // parts, (part + 1) * total // parts
    if AMX:
        begin_sixteen()
    for s in range(sequences_of(batch)):
        each, across, first = blocks_of(batch, s), pieces_across(batch, s, shape), start_of(batch, s)
        pieces = kv_heads * across
        for piece in range(pieces_before(low, each, pieces), pieces_before(high, each, pieces)):
            kv, t, h = piece // across, piece % across // turns * step, piece % turns * ROWS
            attend_piece(out, q, keys, values, batch, work, shape, s, first + t, kv, h)
        low, high = low - each * pieces, high - each * pieces
    if AMX:
        end_sixteen()
