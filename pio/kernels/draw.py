"""Drawing a token from a row of logits: the temperature, the nucleus, and where a random number falls."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels._sampling_record import MIN_P, TEMPERATURE, TOP_K, TOP_P, U
from pio.kernels.exponential import exp
from pio.kernels.simd import (
    LANES,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    keep,
    load_f32,
    load_part_f32,
    put_f32,
    splat,
    sum_lanes,
)
from pio.kernels.top_k import BLOCK, top_k


@kernel
def exp_sums(sums: int, maxima: int, x: int, n: int, largest: float, scale: float) -> float:
    """Sum exponentials over each block of 64 elements; return the sum over all.

    sums[b] = sum(exp((x[i] - largest) * scale) for i in block b)

    Shapes: x float32 (n,); sums, maxima float32 (ceil(n / 64),), the last by ``block_maxima``. A block's sum in
    float32, the sum of blocks in float64; the exponential to 2e-7. sums must not overlap x.
    """
    total = 0.0
    shift, factor, zero = splat(largest), splat(scale), splat(0.0)
    for first in range(0, n, BLOCK):
        if get_f32(maxima + 4 * (first // BLOCK)) == -math.inf:  # as nearly all are behind most masks
            put_f32(sums + 4 * (first // BLOCK), 0.0)
            continue
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
    total = exp_sums(sums, maxima, x, n, largest, scale)
    if get_f64(record + TOP_P) >= 1.0 and get_f64(record + MIN_P) <= 0.0:
        return draw_any(x, sums, n, largest, scale, total, get_f64(record + U))
    token = -1
    if few < n:
        token = draw_among(record, x, n, few, total, maxima, values, ids)
    if token < 0 and many < n:
        token = draw_among(record, x, n, many, total, maxima, values, ids)
    return token if token >= 0 else draw_among(record, x, n, n, -1.0, maxima, values, ids)
