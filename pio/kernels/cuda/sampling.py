"""Choosing the next tokens from rows of logits, as ``pio.kernels.sampling``: a block takes a record."""

from __future__ import annotations

import math

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
from pio.kernels.cuda._block import block_min_i64
from pio.kernels.cuda._jit import cuda_kernel, device_function
from pio.kernels.cuda._selection import CHUNK, ELEMENTS, SHARED, block_maxima, index_of, key_at, largest_keys
from pio.kernels.cuda._selection import TOP as ABOVE
from pio.kernels.cuda.draw import NOWHERE, draw, exp_sums
from pio.kernels.cuda.penalties import copy_allowed, forbid, penalize
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    get_f32,
    get_f64,
    get_i64,
    grid_size,
    put_f64,
    put_i64,
    single,
    syncthreads,
    thread_index,
)


@device_function
def edit_row(row: int, x: int, record: int, n: int) -> int:
    """Copy a row and change the copy as its record asks: penalties, biases, and what must not come.

    row = copy_allowed(x, mask); penalize(row); forbid(row, ids) for every list

    Returns how many threads met NaN or +inf in x. What a mask forbids is -inf from the start: so it stays.

    Shapes: row, x float32 (n,), apart; record int64 (WORDS,); its lists are pairs of an address and a count.
    """
    odd = copy_allowed(row, x, n, get_i64(record + MASK))
    syncthreads()
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
    syncthreads()
    return odd


@device_function
def first_index(x: int, maxima: int, n: int, value: float) -> int:
    """Find the first element equal to the largest one, by the blocks' maxima.

    min(i for i in range(n) if x[i] == value), or -1

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``. Exact.
    """
    found, b = NOWHERE, thread_index()
    while b * ELEMENTS < n:
        if get_f32(maxima + 4 * b) == value:
            found = b
            break
        b += block_size()
    found = block_min_i64(found)
    if found == NOWHERE:
        return -1
    i = found * ELEMENTS + thread_index()
    own = NOWHERE
    if thread_index() < ELEMENTS and i < n:
        if get_f32(x + 4 * i) == value:
            own = i
    return block_min_i64(own)


@device_function
def score(record: int, token: int, x: int, n: int, maxima: int, sums: int) -> None:
    """Write the log probability of a token, and the likeliest tokens with theirs, best first, into its record.

    log_softmax(x)[token];  sorted(enumerate(log_softmax(x)), key=lambda e: (-e[1], e[0]))[:top]

    Shapes: record int64 (WORDS + 2 top,); x float32 (n,), finite; maxima, sums float32 (ceil(n / 64),), scratch. The
    sum over blocks and what follows in float64.
    """
    largest, _ = block_maxima(maxima, x, n)
    log_total = float(largest) + math.log(exp_sums(sums, x, n, largest, single(1.0)))
    k = min(get_i64(record + TOP), n)
    if thread_index() == 0:
        put_f64(record + LOGPROB, float(get_f32(x + 4 * token)) - log_total)
        put_i64(record + NUM_LIKELIEST, k)
    done, high = 0, ABOVE
    while done < k:
        count = min(largest_keys(x, maxima, n, min(k - done, CHUNK), high), k - done)
        i = thread_index()
        while i < count:
            index, place = index_of(key_at(i)), record + LIKELIEST + 16 * (done + i)
            put_i64(place, index)
            put_f64(place + 8, float(get_f32(x + 4 * index)) - log_total)
            i += block_size()
        done, high = done + count, key_at(count - 1)
        syncthreads()


@cuda_kernel(block=512, blocks=1, shared=SHARED)
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
) -> None:
    """Choose a token for each record, from the row that it names, which stays as it is.

    record.token = argmax(edited) if temperature == 0 else draw(edited)       edited = edit_row(logits[record.row])

    Shapes: records int64 (count,), the address of each; logits float32 (rows, n), n < 2^31; row float32 (count, n) and
    maxima, sums float32 (count, ceil(n / 64)), scratch, of which each block of the grid uses one row, so never more
    than there are; ranked is not used. Among equals the lowest token is the likeliest.
    """
    blocks = (n + ELEMENTS - 1) // ELEMENTS
    row += 4 * block_index() * n
    maxima += 4 * block_index() * blocks
    sums += 4 * block_index() * blocks
    i = block_index()
    while i < count:
        record = get_i64(records + 8 * i)
        raw = logits + 4 * n * get_i64(record + ROW)
        token, x, odd = NOT_FINITE, raw, 0
        if get_i64(record + EDITED) != 0:
            x = row
            odd = edit_row(row, raw, record, n)
        largest, own = block_maxima(maxima, x, n)
        if odd == 0 and (own == 0 or x == row):
            if largest == single(-math.inf):
                token = NOTHING_LEFT
            elif largest < single(math.inf):
                if get_f64(record + TEMPERATURE) > 0.0:
                    token = draw(record, x, n, largest, maxima, sums, few, many)
                else:
                    token = first_index(x, maxima, n, largest)
        if thread_index() == 0:
            put_i64(record + TOKEN, token)
        if token >= 0 and get_i64(record + TOP) >= 0:
            score(record, token, raw, n, maxima, sums)
        syncthreads()
        i += grid_size()
