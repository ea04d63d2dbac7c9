"""What changes a row of logits before a token is chosen from it, as ``pio.kernels.penalties``, by a block."""

from __future__ import annotations

import math

from pio.kernels.cuda._block import block_sum_i64
from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda._quads import load_four_of, store_four_of
from pio.kernels.cuda.ptx import block_size, get_f32, get_i32, put_f32, single, syncthreads, thread_index


@device_function
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
    (biased,), distinct, biases float32 (biased,). In float64, rounded once a line.
    """
    i = thread_index()
    while i < seen:
        at = logits + 4 * get_i32(ids + 4 * i)
        x = float(get_f32(at))
        x = x / repetition if x > 0.0 else x * repetition
        count = get_i32(counts + 4 * i)
        if count > 0:
            x = x - (presence + frequency * float(count))
        put_f32(at, single(x))
        i += block_size()
    syncthreads()
    i = thread_index()
    while i < biased:
        at = logits + 4 * get_i32(bias_ids + 4 * i)
        put_f32(at, get_f32(at) + get_f32(biases + 4 * i))
        i += block_size()
    syncthreads()


@device_function
def forbid(logits: int, ids: int, n: int) -> None:
    """Take tokens out of the choice.

    logits[t] = -inf       for every t in ids

    Shapes: logits float32 (vocabulary,), changed in place; ids int32 (n,), in any order and as often as they like.
    """
    i = thread_index()
    while i < n:
        put_f32(logits + 4 * get_i32(ids + 4 * i), single(-math.inf))
        i += block_size()


@device_function
def kept(v: float, bits: int, i: int) -> float:
    """Return a number, or -inf where bit i % 32 is 0.

    Shapes: none.
    """
    return v if bits >> (i & 31) & 1 != 0 else single(-math.inf)


@device_function
def strange(a: float, b: float, c: float, d: float) -> int:
    """Return 1 where one of four numbers is NaN or +inf, else 0.

    Shapes: none.
    """
    end = single(math.inf)
    return 0 if a < end and b < end and c < end and d < end else 1


@device_function
def copy_allowed(row: int, x: int, n: int, mask: int) -> int:
    """Copy logits, -inf where a mask does not allow the token; return how many threads met NaN or +inf.

    row[t] = x[t] if mask[t // 32] >> t % 32 & 1 else -inf

    Shapes: x, row float32 (n,), apart; mask int32 (ceil(n / 32),), or 0 for one that allows everything.
    """
    odd, i, step = 0, 4 * thread_index(), 4 * block_size()
    while i < n:  # four times four at once: loads on the way
        a0, b0, c0, d0 = load_four_of(x, i, n, single(0.0))
        a1, b1, c1, d1 = load_four_of(x, i + step, n, single(0.0))
        a2, b2, c2, d2 = load_four_of(x, i + 2 * step, n, single(0.0))
        a3, b3, c3, d3 = load_four_of(x, i + 3 * step, n, single(0.0))
        odd += strange(a0, b0, c0, d0) + strange(a1, b1, c1, d1)
        odd += strange(a2, b2, c2, d2) + strange(a3, b3, c3, d3)
        put_allowed(row, i, n, mask, a0, b0, c0, d0)
        put_allowed(row, i + step, n, mask, a1, b1, c1, d1)
        put_allowed(row, i + 2 * step, n, mask, a2, b2, c2, d2)
        put_allowed(row, i + 3 * step, n, mask, a3, b3, c3, d3)
        i += 4 * step
    return block_sum_i64(odd)


@device_function
def put_allowed(row: int, i: int, n: int, mask: int, a: float, b: float, c: float, d: float) -> None:
    """Write four logits from token i on, a multiple of four; -inf where a mask does not allow one.

    Shapes: row float32 (n,); mask int32 (ceil(n / 32),), or 0.
    """
    if mask != 0 and i < n:
        bits = get_i32(mask + 4 * (i >> 5))
        a, b, c, d = kept(a, bits, i), kept(b, bits, i + 1), kept(c, bits, i + 2), kept(d, bits, i + 3)
    store_four_of(row, i, n, a, b, c, d)
