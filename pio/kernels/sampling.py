"""Choosing the next tokens from rows of logits: penalties, the best, the nucleus, the draw, log probabilities."""

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
    MIN_P,
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
    TOP_K,
    TOP_P,
    U,
)
from pio.kernels.penalties import forbid, forbid_masked, penalize
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
def exp_sums(sums: int, x: int, n: int, largest: float, scale: float) -> float:
    """Sum exponentials over each block of 64 elements; return the sum over all.

    sums[b] = sum(exp((x[i] - largest) * scale) for i in block b)

    Shapes: x float32 (n,); sums float32 (ceil(n / 64),). A block's sum in float32, the sum of blocks in float64; the
    exponential to 2e-7. sums must not overlap x.
    """
    total = 0.0
    shift, factor, zero = splat(largest), splat(scale), splat(0.0)
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        part = zero
        whole = first + (last - first) // LANES * LANES
        for i in range(first, whole, LANES):
            part = part + exp((load_f32(x + 4 * i) - shift) * factor)
        if whole < last:
            v = exp((load_part_f32(x + 4 * whole, last - whole) - shift) * factor)
            part = part + keep(v, 0, last - whole, 0.0)
        block = sum_lanes(part)
        put_f32(sums + 4 * (first // BLOCK), block)
        total += block
    return total


@kernel
def draw_any(x: int, sums: int, n: int, largest: float, scale: float, total: float, u: float) -> int:
    """Draw an index in proportion to its exponential, from blocks that ``exp_sums`` summed.

    min(i for i in range(n) if sum(exp((x[:i + 1] - largest) * scale)) > u * total)

    Shapes: x float32 (n,); sums float32 (ceil(n / 64),). Sums in float64; 0 <= u < 1.
    """
    target = u * total
    blocks = (n + BLOCK - 1) // BLOCK
    last, start, before = 0, 0.0, 0.0  # rounding may leave the target unpassed: then the last block has it
    for b in range(blocks):
        part = get_f32(sums + 4 * b)
        if part > 0.0:
            last, start = b, before
            before += part
            if before > target:
                break
    chosen, before = -1, start
    for i in range(last * BLOCK, min(last * BLOCK + BLOCK, n)):
        weight = math.exp((get_f32(x + 4 * i) - largest) * scale)
        if weight > 0.0:
            chosen = i
            before += weight
            if before > target:
                break
    return chosen


@kernel
def weigh(values: int, k: int, temperature: float) -> float:
    """Turn sorted logits into weights relative to the first; return their sum.

    values[i] = exp((values[i] - values[0]) / temperature)

    Shapes: values float32 (k,), changed in place. In float64, rounded to float32 before they are summed in float64.
    """
    largest, total = float(get_f32(values)), 0.0
    for i in range(k):
        put_f32(values + 4 * i, math.exp((get_f32(values + 4 * i) - largest) / temperature))
        total += get_f32(values + 4 * i)
    return total


@kernel
def draw_sorted(weights: int, k: int, complete: int, total: float, top_p: float, min_p: float, u: float) -> int:
    """Draw among the nucleus of weights in falling order; -1 where the nucleus may go on behind the k.

    kept = those i with weights[:i].sum() < top_p * total and weights[i] >= min_p
    min(i for i in kept if weights[:i + 1].sum() > u * weights[kept].sum())

    Shapes: weights float32 (k,), the first one 1; total is the sum over all of the distribution, k of it or more;
    complete says that there are no others. Sums in float64; 0 <= u < 1.
    """
    limit = top_p * total if top_p < 1.0 else math.inf
    kept, mass, ended = 0, 0.0, complete != 0
    while kept < k:
        weight = get_f32(weights + 4 * kept)
        if mass >= limit or weight < min_p:
            ended = True
            break
        mass += weight
        kept += 1
    if not ended and mass < limit:
        return -1
    target, before = u * mass, 0.0
    for i in range(kept):
        before += get_f32(weights + 4 * i)
        if before > target:
            return i
    return kept - 1


@kernel
def draw_among(record: int, x: int, n: int, k: int, total: float, maxima: int, values: int, ids: int) -> int:
    """Draw among the k likeliest tokens; -1 where the nucleus may go on behind them.

    weights, ids = top_k(x); weights = weigh(weights); ids[draw_sorted(weights)]

    Shapes: record int64 (WORDS,); x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``; values
    float32 (k,) and ids int32 (k,), scratch. total is the weight of all tokens; below 0 there are no others than the k.
    """
    top_k(values, ids, x, maxima, n, k)
    mass = weigh(values, k, get_f64(record + TEMPERATURE))
    complete = total < 0.0
    whole = mass if complete else total
    top_p, min_p, u = get_f64(record + TOP_P), get_f64(record + MIN_P), get_f64(record + U)
    at = draw_sorted(values, k, int(complete), whole, top_p, min_p, u)
    return get_i32(ids + 4 * at) if at >= 0 else -1


@kernel
def draw(
    record: int,
    x: int,
    n: int,
    largest: float,
    maxima: int,
    sums: int,
    values: int,
    ids: int,
    few: int,
    many: int,
) -> int:
    """Draw a token: temperature, then only the top k, of these the top p, of these the min p.

    min(t for t in kept if p[:t + 1].sum() > u)       p = softmax(x / temperature), in the order of the kept

    A nucleus of unknown size is looked for among the few likeliest, then the many, then all.

    Shapes: record int64 (WORDS,); x float32 (n,) and its largest element; maxima, sums float32 (ceil(n / 64),),
    the first by ``block_maxima``; values float32 (n,), ids int32 (n,), like sums scratch.
    """
    k = get_i64(record + TOP_K)
    if 0 < k < n:
        return draw_among(record, x, n, k, -1.0, maxima, values, ids)
    scale = 1.0 / get_f64(record + TEMPERATURE)
    total = exp_sums(sums, x, n, largest, scale)
    if get_f64(record + TOP_P) >= 1.0 and get_f64(record + MIN_P) <= 0.0:
        return draw_any(x, sums, n, largest, scale, total, get_f64(record + U))
    token = -1
    if few < n:
        token = draw_among(record, x, n, few, total, maxima, values, ids)
    if token < 0 and many < n:
        token = draw_among(record, x, n, many, total, maxima, values, ids)
    return token if token >= 0 else draw_among(record, x, n, n, -1.0, maxima, values, ids)


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
