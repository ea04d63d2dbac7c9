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
from pio.kernels.penalties import forbid, forbid_masked, penalize
from pio.kernels.simd import (
    LANES,
    fma,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    load_f32,
    load_part_f32,
    put_f32,
    put_f64,
    put_i64,
    splat,
    store_f32,
    sum_lanes,
)
from pio.kernels.top_k import BLOCK, block_maxima, top_k

SMALL = 2.0**-20  # a finite row times this has a finite sum


@kernel
def edit_row(row: int, x: int, record: int, n: int) -> None:
    """Copy a row and change the copy as its record asks: penalties, biases, and what must not come.

    row = x; penalize(row); forbid_masked(row, mask); forbid(row, ids) for every list

    Shapes: row, x float32 (n,), apart; record int64 (WORDS,); its lists are pairs of an address and a count.
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(row + 4 * i, load_f32(x + 4 * i))
    for i in range(whole, n):
        put_f32(row + 4 * i, get_f32(x + 4 * i))
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
    mask, lists = get_i64(record + MASK), get_i64(record + LISTS)
    if mask != 0:
        forbid_masked(row, mask, n)
    for i in range(get_i64(record + NUM_LISTS)):
        forbid(row, get_i64(lists + 16 * i), get_i64(lists + 16 * i + 8))


@kernel
def scaled_sum(x: int, n: int) -> float:
    """Sum a row scaled so that finite elements cannot overflow: NaN or +inf tells of a bad element.

    sum(x[i] * 2 ** -20)

    Shapes: x float32 (n,). Sums in float32, sixteen lanes.
    """
    total = splat(0.0)
    scale = splat(SMALL)
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        total = fma(load_f32(x + 4 * i), scale, total)
    if whole < n:
        total = fma(load_part_f32(x + 4 * whole, n - whole), scale, total)
    return sum_lanes(total)


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
    log_total = largest + math.log(exp_sums(sums, x, n, largest, 1.0))
    put_f64(record + LOGPROB, get_f32(x + 4 * token) - log_total)
    k = min(get_i64(record + TOP), n)
    put_i64(record + NUM_LIKELIEST, k)
    if k > 0:
        top_k(values, ids, x, maxima, n, k)
        for i in range(k):
            put_i64(record + LIKELIEST + 16 * i, get_i32(ids + 4 * i))
            put_f64(record + LIKELIEST + 16 * i + 8, get_f32(values + 4 * i) - log_total)


@kernel
def sample(
    records: int,
    count: int,
    logits: int,
    n: int,
    row: int,
    maxima: int,
    sums: int,
    values: int,
    ids: int,
    few: int,
    many: int,
) -> None:
    """Choose a token for each record, from the row that it names, which stays as it is.

    record.token = argmax(edited) if temperature == 0 else draw(edited)       edited = edit_row(logits[record.row])

    Shapes: records int64 (count,), the address of each; logits float32 (rows, n); row, values float32 (n,), ids int32
    (n,), maxima, sums float32 (ceil(n / 64),), scratch. Among equals the lowest token is the likeliest.
    """
    for i in range(count):
        record = get_i64(records + 8 * i)
        raw = logits + 4 * n * get_i64(record + ROW)
        token = NOT_FINITE
        if scaled_sum(raw, n) < math.inf:  # neither infinite nor NaN
            x = raw
            if get_i64(record + EDITED) != 0:
                x = row
                edit_row(x, raw, record, n)
            largest = float(block_maxima(maxima, x, n))
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
