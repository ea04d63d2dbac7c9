"""Choosing the next tokens from rows of logits: what changes a row, the likeliest, and how likely the choice is."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels._sampling_record import (
    BIAS_IDS,
    BIASED,
    BIASES,
    COUNTS,
    EDITED,
    FREQUENCY,
    IDS,
    LIKELIEST,
    LISTS,
    LOGPROB,
    MASK,
    NOT_FINITE,
    NOTHING_LEFT,
    NUM_LIKELIEST,
    NUM_LISTS,
    PRESENCE,
    REPETITION,
    ROW,
    SEEN,
    TEMPERATURE,
    TOKEN,
    TOP,
)
from pio.kernels.draw import draw, exp_sums
from pio.kernels.parallel import parallel_kernel
from pio.kernels.penalties import SMALL, copy_allowed, forbid, penalize
from pio.kernels.simd import (
    LANES,
    fma,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    keep,
    load_f32,
    load_part_f32,
    max_lanes,
    maximum,
    put_f32,
    put_f64,
    put_i64,
    splat,
    sum_lanes,
)
from pio.kernels.top_k import BLOCK, block_maxima, top_k


@kernel
def edit_row(row: int, x: int, record: int, n: int) -> float:
    """Copy a row and change the copy as its record asks: penalties, biases, and what must not come.

    row = copy_allowed(x, mask); penalize(row); forbid(row, ids) for every list

    What a mask forbids is -inf from the start: so it stays. Returns a number that is NaN or +inf where any element of
    x is, as ``copy_allowed`` does.

    Shapes: row, x float32 (n,), apart; record int64 (WORDS,); its lists are pairs of an address and a count.
    """
    total = copy_allowed(row, x, n, get_i64(record + MASK))
    penalize(
        row,
        get_i64(record + IDS),
        get_i64(record + COUNTS),
        get_i64(record + SEEN),
        get_f64(record + REPETITION),
        get_f64(record + PRESENCE),
        get_f64(record + FREQUENCY),
        get_i64(record + BIAS_IDS),
        get_i64(record + BIASES),
        get_i64(record + BIASED),
    )
    lists = get_i64(record + LISTS)
    for i in range(get_i64(record + NUM_LISTS)):
        forbid(row, get_i64(lists + 16 * i), get_i64(lists + 16 * i + 8))
    return total


@kernel
def finite_maxima(maxima: int, x: int, n: int) -> float:
    """Take the maxima of blocks as ``block_maxima`` does; +inf where any element is NaN or +inf.

    Shapes: maxima float32 (ceil(n / 64),); x float32 (n,). Exact. maxima must not overlap x.
    """
    lowest, scale = splat(-math.inf), splat(SMALL)
    best, total = lowest, splat(0.0)
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        top = lowest
        whole = first + (last - first) // LANES * LANES
        for i in range(first, whole, LANES):
            v = load_f32(x + 4 * i)
            total = fma(v, scale, total)
            top = maximum(top, v)
        if whole < last:
            v = load_part_f32(x + 4 * whole, last - whole)
            total = fma(v, scale, total)
            top = maximum(top, keep(v, 0, last - whole, -math.inf))
        put_f32(maxima + 4 * (first // BLOCK), max_lanes(top))
        best = maximum(best, top)
    return max_lanes(best) if sum_lanes(total) < math.inf else math.inf


@kernel
def first_index(x: int, maxima: int, n: int, value: float) -> int:
    """Find the first element equal to the largest one, by the blocks' maxima.

    min(i for i in range(n) if x[i] == value), or -1

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``. Exact.
    """
    for b in range((n + BLOCK - 1) // BLOCK):
        if get_f32(maxima + 4 * b) == value:
            for i in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
                if get_f32(x + 4 * i) == value:
                    return i
    return -1


@kernel
def score(record: int, token: int, x: int, n: int, maxima: int, sums: int, values: int, ids: int) -> None:
    """Write the log probability of a token, and the likeliest tokens with theirs, best first, into its record.

    log_softmax(x)[token];  sorted(enumerate(log_softmax(x)), key=lambda e: (-e[1], e[0]))[:top]

    Shapes: record int64 (WORDS + 2 top,); x float32 (n,), finite; maxima, sums float32 (ceil(n / 64),), values
    float32 (n,), ids int32 (n,), scratch. The sum over blocks and what follows in float64.
    """
    largest = float(block_maxima(maxima, x, n))
    log_total = largest + math.log(exp_sums(sums, maxima, x, n, largest, 1.0))
    put_f64(record + LOGPROB, get_f32(x + 4 * token) - log_total)
    k = min(get_i64(record + TOP), n)
    put_i64(record + NUM_LIKELIEST, k)
    if k > 0:
        top_k(values, ids, x, maxima, n, k)
        for i in range(k):
            put_i64(record + LIKELIEST + 16 * i, get_i32(ids + 4 * i))
            put_f64(record + LIKELIEST + 16 * i + 8, get_f32(values + 4 * i) - log_total)


@parallel_kernel
def sample(
    records: int,
    count: int,
    logits: int,
    n: int,
    row: int,
    maxima: int,
    sums: int,
    ranked: int,
    few: int,
    many: int,
    part: int,
    parts: int,
) -> None:
    """Choose a token for each record, from the row that it names, which stays as it is.

    record.token = argmax(edited) if temperature == 0 else draw(edited)       edited = edit_row(logits[record.row])

    Shapes: records int64 (count,), the address of each; logits float32 (rows, n); row float32 (parts, n), maxima, sums
    float32 (parts, ceil(n / 64)), ranked float32 and int32 (parts, 2, n), scratch. Among equals the lowest token is the
    likeliest.
    """
    blocks = (n + BLOCK - 1) // BLOCK
    row, maxima, sums = row + 4 * n * part, maxima + 4 * blocks * part, sums + 4 * blocks * part
    values = ranked + 8 * n * part
    ids = values + 4 * n
    for i in range(count * part // parts, count * (part + 1) // parts):
        record = get_i64(records + 8 * i)
        raw = logits + 4 * n * get_i64(record + ROW)
        token, x, largest = NOT_FINITE, raw, math.inf
        if get_i64(record + EDITED) == 0:
            largest = float(finite_maxima(maxima, raw, n))
        elif edit_row(row, raw, record, n) < math.inf:
            x, largest = row, float(block_maxima(maxima, row, n))
        if largest == -math.inf:
            token = NOTHING_LEFT
        elif largest < math.inf:
            if get_f64(record + TEMPERATURE) > 0.0:
                token = draw(record, x, n, largest, maxima, sums, values, ids, few, many)
            else:
                token = first_index(x, maxima, n, largest)
        put_i64(record + TOKEN, token)
        if token >= 0 and get_i64(record + TOP) >= 0:
            score(record, token, raw, n, maxima, sums, values, ids)
