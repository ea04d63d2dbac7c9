"""Choosing the next token from one row of logits: penalties, the best, the nucleus, the draw, log probabilities."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels.simd import (
    LANES,
    exp,
    fma,
    get_f32,
    get_i32,
    keep,
    load_f32,
    load_part_f32,
    put_f32,
    splat,
    sum_lanes,
)
from pio.kernels.sizes import MAXIMA as BLOCK

SMALL = 2.0**-20  # a finite row times this has a finite sum


@kernel
def penalize(
    logits: int,
    ids: int,
    counts: int,
    seen: int,
    repetition: float,
    presence: float,
    frequency: float,
    bias_ids: int,
    biases: int,
    biased: int,
) -> None:
    """Penalise the tokens of prompt and answer, then add biases.

    x = logits[t];  x = x / repetition if x > 0 else x * repetition       for every t in ids
    logits[t] = x - (presence + frequency * c if c > 0 else 0)            c = how often the answer has t
    logits[b] += bias                                                     for every biased token

    Shapes: logits float32 (vocabulary,), changed in place; ids, counts int32 (seen,), ids distinct; bias_ids int32
    (biased,), biases float32 (biased,). In float64, rounded once a line.
    """
    for i in range(seen):
        at = logits + 4 * get_i32(ids + 4 * i)
        x = float(get_f32(at))
        x = x / repetition if x > 0 else x * repetition
        count = get_i32(counts + 4 * i)
        if count > 0:
            x -= presence + frequency * count
        put_f32(at, x)
    for i in range(biased):
        at = logits + 4 * get_i32(bias_ids + 4 * i)
        put_f32(at, get_f32(at) + get_f32(biases + 4 * i))


@kernel
def forbid(logits: int, ids: int, n: int) -> None:
    """Take tokens out of the choice.

    logits[t] = -inf       for every t in ids

    Shapes: logits float32 (vocabulary,), changed in place; ids int32 (n,), in any order and as often as they like.
    """
    for i in range(n):
        put_f32(logits + 4 * get_i32(ids + 4 * i), -math.inf)


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
