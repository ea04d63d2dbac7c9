"""What changes a row of logits before a token is chosen from it: penalties, biases, and tokens that must not come."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels.simd import (
    LANES,
    fma,
    get_f32,
    get_i32,
    keep_set,
    load_f32,
    load_part_f32,
    put_f32,
    splat,
    store_f32,
    store_part_f32,
    sum_lanes,
)

SMALL = 2.0**-20  # a finite row times this has a finite sum


@kernel
def copy_allowed(row: int, x: int, n: int, mask: int) -> float:
    """Copy a row but for what a mask does not allow; NaN or +inf is returned where any element of the row is.

    row[t] = x[t] if mask == 0 or mask[t // 32] >> t % 32 & 1 else -inf;  return sum(x * 2 ** -20)

    Shapes: row, x float32 (n,), apart; mask int32 (ceil(n / 32),), or 0 where all is allowed. Sums in float32, sixteen
    lanes.
    """
    whole, scale = n // LANES * LANES, splat(SMALL)
    total, bits = splat(0.0), -1
    for i in range(0, whole, LANES):
        if mask != 0:
            bits = get_i32(mask + i // 32 * 4) >> i % 32
        v = load_f32(x + 4 * i)
        total = fma(v, scale, total)
        store_f32(row + 4 * i, keep_set(v, bits, -math.inf))
    if whole < n:
        if mask != 0:
            bits = get_i32(mask + whole // 32 * 4) >> whole % 32
        v = load_part_f32(x + 4 * whole, n - whole)
        total = fma(v, scale, total)
        store_part_f32(row + 4 * whole, keep_set(v, bits, -math.inf), n - whole)
    return sum_lanes(total)


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
