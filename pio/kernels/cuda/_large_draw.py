"""Drawing a token from a nucleus that has too many to be sorted: by sums of all from some key on, again and again.

Weights are float32 exponentials here, where a CPU rounds those of float64: 4e-7 of each other.
"""

from __future__ import annotations

from pio.kernels._sampling_record import MIN_P, TEMPERATURE, TOP_P, U
from pio.kernels.cuda._block import block_sum_f64
from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda._selection import ELEMENTS, LANES, TOP, count_keys, index_of, key_of, rank
from pio.kernels.cuda.exponential import exp
from pio.kernels.cuda.ptx import block_size, get_f32, get_f64, single, thread_index, times


@device_function
def lowest_key(x: int, maxima: int, n: int, k: int) -> int:
    """Return a key that k elements reach and no more.

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``; 1 <= k <= n.
    """
    low, beyond = 0, TOP
    count = n
    while count > k:
        middle = low + (beyond - low) // 2
        found = count_keys(x, maxima, n, middle, TOP)
        if found >= k:
            low, count = middle, found
        else:
            beyond = middle
    return low


@device_function
def mass_from(x: int, maxima: int, n: int, low: int, largest: float, scale: float, least: float) -> float:
    """Sum the exponentials of the elements whose keys are from low on, those that are at least ``least``.

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``. Sums in float64, each thread's first.
    """
    total, lane, b = 0.0, thread_index() % LANES, thread_index() // LANES
    while b * ELEMENTS < n:
        if rank(get_f32(maxima + 4 * b)) >= low >> 31:
            i = b * ELEMENTS + lane
            for _ in range(4):
                if i < n:
                    v = get_f32(x + 4 * i)
                    weight = exp(times(v - largest, scale))
                    if key_of(v, i) >= low and weight >= least:
                        total += float(weight)
                i += LANES
        b += block_size() // LANES
    return block_sum_f64(total)


@device_function
def draw_large(record: int, x: int, maxima: int, n: int, k: int, largest: float) -> int:
    """Draw among the k likeliest tokens: halve the keys where the nucleus may end, then those of the draw.

    Shapes: record int64 (WORDS,); x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``.
    """
    scale, zero = single(1.0 / get_f64(record + TEMPERATURE)), single(0.0)
    least, top_p = single(get_f64(record + MIN_P)), get_f64(record + TOP_P)
    low, beyond = lowest_key(x, maxima, n, k), rank(largest) + 1 << 31
    if top_p < 1.0:
        limit = top_p * mass_from(x, maxima, n, low, largest, scale, zero)
        # the lowest key above which there is less than the limit
        over = low - 1  # above it there may be too much
        end = beyond
        while end - over > 1:
            middle = over + (end - over) // 2
            if mass_from(x, maxima, n, middle + 1, largest, scale, zero) < limit:
                end = middle
            else:
                over = middle
        low = end
    target = get_f64(record + U) * mass_from(x, maxima, n, low, largest, scale, least)
    while beyond - low > 1:
        middle = low + (beyond - low) // 2
        if mass_from(x, maxima, n, middle, largest, scale, least) > target:
            low = middle
        else:
            beyond = middle
    return index_of(low)
