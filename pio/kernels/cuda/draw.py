"""Drawing a token from a row of logits, as ``pio.kernels.draw``, by a block of threads.

The same exponentials and, of each 64 elements, the same sums as on a CPU. Sums of float64 are in another order, that of
a tree, so that a random number within 1e-15 of a boundary between two tokens may fall to the other side; within 4e-7
where a nucleus has more than CAPACITY tokens, see ``_large_draw``.
"""

from __future__ import annotations

import math

from pio.kernels._sampling_record import MIN_P, TEMPERATURE, TOP_K, TOP_P, U
from pio.kernels.cuda._block import block_min_i64, block_sum_f64, sum_before_f64
from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda._large_draw import draw_large
from pio.kernels.cuda._selection import (
    CAPACITY,
    ELEMENTS,
    INDEX,
    KEYS,
    LANES,
    TOP,
    index_of,
    key_at,
    largest_keys,
)
from pio.kernels.cuda.exponential import exp, exp_f64
from pio.kernels.cuda.ptx import (
    WARP,
    bits_of,
    block_size,
    get_f32,
    get_f64,
    get_i64,
    of_bits,
    plus,
    put_f32,
    put_shared_i64,
    shared_memory,
    shifted_down,
    shuffle_xor,
    single,
    syncthreads,
    thread_index,
    times,
)

NOWHERE = 1 << 62


@device_function
def lane_elements(x: int, n: int, b: int) -> tuple[float, float, float, float]:
    """Return the elements of block b that a lane of sixteen takes, -inf behind the end.

    x[64 b + lane + 16 j],  0 <= j < 4

    Shapes: x float32 (n,).
    """
    lowest, i = single(-math.inf), b * ELEMENTS + thread_index() % LANES
    at = x + 4 * i
    if b * ELEMENTS + ELEMENTS <= n:
        return get_f32(at), get_f32(at + 4 * LANES), get_f32(at + 8 * LANES), get_f32(at + 12 * LANES)
    p = q = r = s = lowest
    if i < n:
        p = get_f32(at)
    if i + LANES < n:
        q = get_f32(at + 4 * LANES)
    if i + 2 * LANES < n:
        r = get_f32(at + 8 * LANES)
    if i + 3 * LANES < n:
        s = get_f32(at + 12 * LANES)
    return p, q, r, s


@device_function
def block_exp_sum(p: float, q: float, r: float, s: float, largest: float, scale: float) -> float:
    """Sum the exponentials of 64 elements that sixteen lanes have, in the order of the CPU's kernel.

    Shapes: none.
    """
    total = plus(exp(times(p - largest, scale)), exp(times(q - largest, scale)))
    total = plus(plus(total, exp(times(r - largest, scale))), exp(times(s - largest, scale)))
    total = plus(total, shuffle_xor(total, 8))
    total = plus(total, shuffle_xor(total, 4))
    total = plus(total, shuffle_xor(total, 2))
    return plus(total, shuffle_xor(total, 1))


@device_function
def exp_sums(sums: int, x: int, n: int, largest: float, scale: float) -> float:
    """Sum exponentials over each 64 elements; return the sum over all.

    sums[b] = sum(exp((x[i] - largest) * scale) for i in block b)

    Shapes: x float32 (n,); sums float32 (ceil(n / 64),). A block's sum in float32, bit by bit that of the CPU's kernel,
    the sum of blocks in float64. sums must not overlap x.
    """
    total, apart = 0.0, block_size() // LANES
    half, first = thread_index() % WARP // LANES, thread_index() // WARP * 2
    while first * ELEMENTS < n:  # two of each half of a warp at once: loads on the way
        b = first + half
        p0, q0, r0, s0 = lane_elements(x, n, b)
        p1, q1, r1, s1 = lane_elements(x, n, b + apart)
        sum0 = block_exp_sum(p0, q0, r0, s0, largest, scale)
        sum1 = block_exp_sum(p1, q1, r1, s1, largest, scale)
        if thread_index() % LANES == 0:
            if b * ELEMENTS < n:
                put_f32(sums + 4 * b, sum0)
                total += float(sum0)
            if (b + apart) * ELEMENTS < n:
                put_f32(sums + 4 * (b + apart), sum1)
                total += float(sum1)
        first += 2 * apart
    return block_sum_f64(total)


@device_function
def first_beyond(sums: int, blocks: int, target: float) -> tuple[int, float]:
    """Return the first block at whose end a sum passes a target, and the sum before it; the last that has any, if none.

    Shapes: sums float32 (blocks,). Sums in float64.
    """
    length = (blocks + block_size() - 1) // block_size()
    first = min(thread_index() * length, blocks)
    last, own = min(first + length, blocks), 0.0
    for b in range(first, last):
        own += float(get_f32(sums + 4 * b))
    before = sum_before_f64(own)
    found, latest, total = NOWHERE, 0, before
    for b in range(first, last):
        part = float(get_f32(sums + 4 * b))
        if part > 0.0:
            latest = b
            if found == NOWHERE and total + part > target:
                found = b
        total += part
    found = block_min_i64(found)
    if found == NOWHERE:  # rounding may leave the target unpassed: then the last block has it
        found = -block_min_i64(-latest)
    start = 0.0
    if found >= first and found < last:
        start = before
        for b in range(first, found):
            start += float(get_f32(sums + 4 * b))
    return found, block_sum_f64(start)


@device_function
def draw_any(x: int, sums: int, n: int, largest: float, scale: float, total: float, u: float) -> int:
    """Draw an index in proportion to its exponential, from blocks that ``exp_sums`` summed.

    min(i for i in range(n) if sum(exp((x[:i + 1] - largest) * scale)) > u * total)

    Shapes: x float32 (n,); sums float32 (ceil(n / 64),). Sums in float64; 0 <= u < 1.
    """
    target = u * total
    b, start = first_beyond(sums, (n + ELEMENTS - 1) // ELEMENTS, target)
    i, weight = b * ELEMENTS + thread_index(), 0.0
    if thread_index() < ELEMENTS and i < n:
        weight = exp_f64((float(get_f32(x + 4 * i)) - float(largest)) * scale)
    before = start + sum_before_f64(weight)
    found = block_min_i64(i if weight > 0.0 and before + weight > target else NOWHERE)
    if found == NOWHERE:
        found = -block_min_i64(-i if weight > 0.0 else 1)
    return found


@device_function
def weight_at(i: int) -> float:
    """Return the weight of candidate i, which took the place of the upper bits of its key.

    Shapes: none.
    """
    return float(of_bits(shifted_down(key_at(i), 32)))


@device_function
def weigh(x: int, k: int, temperature: float) -> None:
    """Put the weights of the k first keys in shared memory, relative to the first one, in the place of their values.

    exp((x[i] - x[first]) / temperature)

    Shapes: x float32 (n,). In float64, rounded to float32.
    """
    largest = float(get_f32(x + 4 * index_of(key_at(0))))
    syncthreads()  # the first key is about to change
    i = thread_index()
    while i < k:
        index = index_of(key_at(i))
        weight = single(exp_f64((float(get_f32(x + 4 * index)) - largest) / temperature))
        put_shared_i64(shared_memory() + KEYS + 8 * i, bits_of(weight) << 32 | index)
        i += block_size()
    syncthreads()


@device_function
def draw_sorted(k: int, complete: bool, whole: float, top_p: float, min_p: float, u: float) -> int:
    """Draw among the nucleus of weights in falling order; -1 where the nucleus may go on behind the k.

    kept = those i with weights[:i].sum() < top_p * whole and weights[i] >= min_p
    min(i for i in kept if weights[:i + 1].sum() > u * weights[kept].sum())

    Shapes: none; the weights by ``weigh``. whole is the sum over all of the distribution, k of it or more, or that of
    the k where complete says that there are no others. Sums in float64; 0 <= u < 1.
    """
    length = (k + block_size() - 1) // block_size()
    first = min(thread_index() * length, k)
    last, own = min(first + length, k), 0.0
    for i in range(first, last):
        own += weight_at(i)
    before = sum_before_f64(own)
    mass = block_sum_f64(own)
    limit = math.inf
    if top_p < 1.0:
        limit = top_p * mass if complete else top_p * whole
    end, total = NOWHERE, before
    for i in range(first, last):
        weight = weight_at(i)
        if end == NOWHERE and (total >= limit or weight < min_p):
            end = i
        total += weight
    end = block_min_i64(end)
    kept = min(end, k)
    if end == NOWHERE and not complete and mass < limit:
        return -1
    own = 0.0
    for i in range(first, min(last, kept)):
        own += weight_at(i)
    target = u * block_sum_f64(own)
    found, total = NOWHERE, before
    for i in range(first, min(last, kept)):
        total += weight_at(i)
        if found == NOWHERE and total > target:
            found = i
    return min(block_min_i64(found), kept - 1)


@device_function
def draw_among(record: int, x: int, maxima: int, n: int, k: int, whole: float) -> int:
    """Draw among the k likeliest tokens; -1 where the nucleus may go on behind them.

    Shapes: record int64 (WORDS,); x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``. whole is the
    weight of all tokens; below 0 there are no others than the k.
    """
    largest_keys(x, maxima, n, k, TOP)
    weigh(x, k, get_f64(record + TEMPERATURE))
    at = draw_sorted(k, whole < 0.0, whole, get_f64(record + TOP_P), get_f64(record + MIN_P), get_f64(record + U))
    token = -1
    if at >= 0:
        token = key_at(at) & INDEX
    syncthreads()
    return token


@device_function
def draw(record: int, x: int, n: int, largest: float, maxima: int, sums: int, few: int, many: int) -> int:
    """Draw a token: temperature, then only the top k, of these the top p, of these the min p.

    min(t for t in kept if p[:t + 1].sum() > u)       p = softmax(x / temperature), in the order of the kept

    A nucleus of unknown size is looked for among the few likeliest, then the many, then all.

    Shapes: record int64 (WORDS,); x float32 (n,) and its largest element; maxima, sums float32 (ceil(n / 64),), the
    first by ``block_maxima``, sums scratch.
    """
    k = get_i64(record + TOP_K)
    if k > 0 and k < n:
        if k <= CAPACITY:
            return draw_among(record, x, maxima, n, k, -1.0)
        return draw_large(record, x, maxima, n, k, largest)
    scale = 1.0 / get_f64(record + TEMPERATURE)
    total = exp_sums(sums, x, n, largest, single(scale))
    if get_f64(record + TOP_P) >= 1.0 and get_f64(record + MIN_P) <= 0.0:
        return draw_any(x, sums, n, largest, scale, total, get_f64(record + U))
    token = -1
    if few < n:
        token = draw_among(record, x, maxima, n, min(few, CAPACITY), total)
    if token < 0 and many < n:
        token = draw_among(record, x, maxima, n, min(many, CAPACITY), total)
    if token < 0:
        if n <= CAPACITY:
            token = draw_among(record, x, maxima, n, n, -1.0)
        else:
            token = draw_large(record, x, maxima, n, n, largest)
    return token
