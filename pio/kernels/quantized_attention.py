"""Attention over a paged cache of int8: integer dot products for scores and for values.

Keys and values lie as ``quantized_cache`` says. The scales of values go into the probabilities, which are quantized to
0..127 by query and block. ``attention`` walks the blocks.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import math
from typing import Any, Final

from pio.kernels import _llvm as ll
from pio.kernels._amx_attention import begin_sixteen, end_sixteen, scores_tile, start_scores, weighted_tile
from pio.kernels._attention_shape import FEW, HEAD_DIM, SCALE, WINDOW, width_of
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import PAIR, RECORD, START
from pio.kernels._jit import kernel
from pio.kernels._paired_scores import paired_scores
from pio.kernels._rows import fill_f32, scale_row
from pio.kernels.exponential import exp
from pio.kernels.quantize import quantize_row
from pio.kernels.quantized_cache import LARGEST, SMALLEST
from pio.kernels.quantized_tiles import PAIRED, quantized_tile
from pio.kernels.simd import (
    LANES,
    VEC,
    Vec,
    fma,
    get_f32,
    get_f64,
    get_i64,
    int64,
    keep,
    load_f32,
    max_lanes,
    maximum,
    primitive,
    put_f32,
    put_i64,
    splat,
    store_f32,
    store_u8,
    sum_lanes,
)
from pio.kernels.sizes import AMX, BLOCK, CHANCE, KEY_PAIR, ROWS, STARTS
from pio.kernels.tiles import prefetch
from pio.kernels.values_tiles import values_tile

HALVES: Final = BLOCK // OUTPUTS
LEAST: Final = -3e38  # below every score that counts, and finite: it can be subtracted from -inf

quantize_row_int8 = quantize_row["int8"]
scores_eight, scores_four, scores_one = (quantized_tile(rows)["int8"] for rows in (8, 4, 1))
values_eight, values_four, values_one = values_tile(8), values_tile(4), values_tile(1)
sixteen_scores, sixteen_values = scores_tile(4 * BLOCK), weighted_tile(1, CHANCE, shrinks=False)


def _emit_max_rows(b: Any, address: Any) -> Any:
    rows = [ll.load_as(b, ll.at(b, address, (4 * LANES, r)), "float32") for r in range(LANES)]
    return ll.fold_all(b, rows, lambda x, y: ll.maximum(b, x, y))[0]


@primitive(VEC, int64, emit=_emit_max_rows)
def max_rows(address: int) -> Vec:
    """The largest of each of sixteen rows of sixteen numbers: lane r of the result is that of row r."""
    return Vec(max_lanes(load_f32(address + 4 * LANES * r)) for r in range(LANES))


@kernel
def score_rows(scores: int, q: int, keys: int, rows: int, pairs: int, ahead: int) -> None:
    """Multiply quantized queries by a cache block's keys.

    scores[r, j] = q[r] . keys[j]

    Shapes: scores float32 (rows, BLOCK); q (rows, 16 + 80 pairs) bytes; keys (2, pairs, 1088) bytes, likewise those
    that are met next. Sums as in ``quantized_tiles``.
    """
    if PAIRED:
        paired_scores(scores, q, keys, rows, pairs, BLOCK, ahead)
        return
    row, half = START + pairs * RECORD, pairs * KEY_PAIR
    for j in range(HALVES):
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

    Shapes: as in ``weigh_row`` and ``take_block``, offset to the head's first row; at, length, window as in
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
def sums_of(work: int, shape: int) -> int:
    """Return where the sums of all rows lie in ``work``, behind their state; the largest probabilities are behind them.

    Shapes: work as in ``begin_rows``.
    """
    record = START + pairs_of(shape) * RECORD
    return work + ROWS * (4 * width_of(shape) + 4 * BLOCK + CHANCE + record + 4 * 5)


@kernel
def pairs_of(shape: int) -> int:
    """Return how many pairs of groups hold a key.

    Shapes: shape int64, the record of ``_attention_shape``.
    """
    return (get_i64(shape + HEAD_DIM) + PAIR - 1) // PAIR


@kernel
def begin_rows(work: int, rows: int, shape: int) -> None:
    """Have seen nothing yet: outputs are zero, so are sums, and the largest score is below every number.

    Shapes: work (int8_attention_bytes,), whose parts are outputs float32 (ROWS, width), scores float32 (ROWS, BLOCK),
    probabilities (ROWS, 48) and queries (ROWS, 16 + 80 pairs) bytes, the state of ``advance`` float32 (5, ROWS), sums
    and largest probabilities float32 (ROWS, 16) each, what integer sums start from where there is AMX, and a scaled
    query.
    """
    sums = sums_of(work, shape)
    fill_f32(work, rows * width_of(shape), 0.0)
    fill_f32(sums, ROWS * LANES, 0.0)
    fill_f32(sums - 4 * 5 * ROWS, 2 * ROWS, -math.inf)
    if AMX:
        if rows == ROWS:
            begin_sixteen()


@kernel
def put_queries(work: int, first: int, count: int, q: int, shape: int) -> None:
    """Take in the queries of some rows, times the factor of scores, quantized.

    Shapes: q float32 (count, head_dim), of the rows from ``first`` on; work as in ``begin_rows``.
    """
    head_dim, record = get_i64(shape + HEAD_DIM), START + pairs_of(shape) * RECORD
    queries = work + ROWS * (4 * width_of(shape) + 4 * BLOCK + CHANCE)
    starts = sums_of(work, shape) + 4 * 2 * ROWS * LANES
    scaled = starts + pairs_of(shape) * STARTS
    scale = get_f64(shape + SCALE)
    for r in range(count):
        scale_row(scaled, q + 4 * r * head_dim, head_dim, scale)
        quantize_row_int8(queries + (first + r) * record, scaled, head_dim)
    if AMX:
        if first + count == ROWS:  # rows come in their order: all are there
            start_scores(starts, queries, pairs_of(shape))


@kernel
def take_block(
    work: int, keys: int, values: int, page: int, after: int, at: int, left: int, tokens: int, heads: int, span: int,
    shape: int,
) -> None:  # fmt: skip
    """Let all rows see a cache block of each of ``span`` key/value heads.

    Shapes: work as in ``begin_rows``, rows of a head one behind the other; keys (blocks, kv_heads, key_bytes) and
    values (blocks, kv_heads, value_bytes); page and after count the first head of this block and of the next; at is how
    far the first token's position is behind the block's first, left likewise the length of what all tokens see, where
    that is not 0. Sums in float32.
    """
    per, pairs, width, window = tokens * heads, pairs_of(shape), width_of(shape), get_i64(shape + WINDOW)
    record, key_step, value_step = START + pairs * RECORD, HALVES * pairs * KEY_PAIR, BLOCK * width + 4 * BLOCK
    scores = work + 4 * ROWS * width
    chances = scores + 4 * ROWS * BLOCK
    queries, sums = chances + ROWS * CHANCE, sums_of(work, shape)
    state, peaks = sums - 4 * 5 * ROWS, sums + 4 * ROWS * LANES
    for i in range(span):  # the heads of a block lie side by side: one stream of memory
        first, following = i * per, page + i + 1 if i + 1 < span else after
        if per < FEW:
            prefetch(keys + following * key_step, key_step)
        if AMX:
            if per == ROWS:
                put_i64(peaks, keys + page * key_step)  # nobody else needs that memory by now
                sixteen_scores(scores, queries, peaks, peaks + 4 * ROWS * LANES, 1, pairs)
                continue
        here, ahead = keys + (page + i) * key_step, keys + following * key_step
        score_rows(scores + 4 * first * BLOCK, queries + first * record, here, per, pairs, ahead)
    block_maxima(state + 4 * ROWS, scores, at, left, window, span, tokens, heads)
    advance(state)
    for i in range(span):
        first, following = i * per, page + i + 1 if i + 1 < span else after
        at_scores, at_acc = scores + 4 * first * BLOCK, work + 4 * first * width
        at_values = values + (page + i) * value_step
        if per < FEW:
            prefetch(values + following * value_step, value_step)
        scales, at_sums, column = at_values + BLOCK * width, sums + 4 * first * LANES, state + 4 * first
        weigh_rows(at_scores, at_acc, at_sums, peaks, column, scales, at, left, window, tokens, heads, width)
        at_chances = chances + CHANCE * first
        quantize_chances(at_chances, at_scores, peaks, column, per)
        if AMX:
            if per == ROWS:
                put_i64(peaks, at_values)
                sixteen_values(work, chances, peaks, 1, width)
                continue
        add_values(at_acc, at_chances, at_values, per, width)


@kernel
def finish_rows(out: int, work: int, first: int, count: int, shape: int) -> None:
    """Write what attention gives for some rows.

    Shapes: out float32 (count, head_dim), of the rows from ``first`` on; work as in ``begin_rows``.
    """
    head_dim, width, sums = get_i64(shape + HEAD_DIM), width_of(shape), sums_of(work, shape)
    for r in range(count):
        total = sum_lanes(load_f32(sums + 4 * (first + r) * LANES))  # zero where all scores are below every number
        factor = 1.0 / total if total != 0.0 else math.nan
        scale_row(out + 4 * r * head_dim, work + 4 * (first + r) * width, head_dim, factor)
    if AMX:
        if first + count == ROWS:
            end_sixteen()
