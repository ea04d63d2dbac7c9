"""What changes a row of logits before a token is chosen from it: penalties, biases, and tokens that must not come."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels.simd import get_f32, get_i32, put_f32


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
def forbid_masked(logits: int, mask: int, n: int) -> None:
    """Take tokens out of the choice that a mask does not allow.

    logits[t] = -inf       for every t whose bit is 0: mask[t // 32] >> t % 32 & 1

    Shapes: logits float32 (vocabulary,), changed in place; mask int32 (ceil(vocabulary / 32),).
    """
    for word in range((n + 31) // 32):
        bits = get_i32(mask + 4 * word)
        if bits != -1:
            for i in range(32 * word, min(32 * word + 32, n)):
                if bits >> (i & 31) & 1 == 0:
                    put_f32(logits + 4 * i, -math.inf)
