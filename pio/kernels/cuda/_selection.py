"""The largest elements of a row, in order, by a block of threads and without sorting the row.

Elements are compared by keys, which are all different: a number that grows with the value, then the index from behind,
so that among equals the lower one is first. NaN counts as -inf. What is looked for are all keys from a threshold on,
few enough for shared memory, and these are sorted there. Sixteen threads take the sixty-four elements that one maximum
stands for, and pass by where it is too small.
"""

from __future__ import annotations

import math

from pio.kernels.cuda._block import SCRATCH, block_sum_i64
from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda._quads import block_max, load_four_of
from pio.kernels.cuda.ptx import (
    WARP,
    add_shared,
    block_size,
    get_f32,
    get_shared_i32,
    get_shared_i64,
    maximum,
    plus,
    put_f32,
    put_shared_i32,
    put_shared_i64,
    rank_of,
    shared_memory,
    shuffle_xor,
    single,
    syncthreads,
    thread_index,
)

ELEMENTS = 64  # that one maximum stands for, as on a CPU
LANES = 16  # threads that take them
CAPACITY = 4096  # keys that are sorted together
CHUNK = 2048  # keys that are asked for at once where more are wanted
COUNTER = SCRATCH  # where in shared memory keys are counted
KEYS = SCRATCH + 16  # and where they are
SHARED = KEYS + 8 * CAPACITY
INDEX = (1 << 31) - 1  # the lower bits of a key
TOP = (1 << 63) - 1  # above every key


@device_function
def note_maximum(maxima: int, x: int, n: int, b: int) -> tuple[float, int]:
    """Write the maximum of 64 elements, if there are any; return it, and whether a lane's own have NaN or +inf.

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),). Sixteen lanes take four elements each.
    """
    lane, end = thread_index() % LANES, single(math.inf)
    p, q, r, s = load_four_of(x, b * ELEMENTS + 4 * lane, n, single(-math.inf))
    strange = 0 if p < end and q < end and r < end and s < end else 1
    top = maximum(maximum(p, q), maximum(r, s))
    for bit in range(4):
        top = maximum(top, shuffle_xor(top, 1 << bit))
    if lane == 0 and b * ELEMENTS < n:
        put_f32(maxima + 4 * b, top)
    return top, strange


@device_function
def block_maxima(maxima: int, x: int, n: int) -> tuple[float, int]:
    """Take the maximum of each 64 elements; return that of all, and how many threads met NaN or +inf.

    maxima[b] = max(x[64 b : 64 b + 64]), NaN left out, -inf where nothing else is there

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),). Exact. maxima must not overlap x.
    """
    best, strange, apart = single(-math.inf), 0, block_size() // LANES
    half, first = thread_index() % WARP // LANES, thread_index() // WARP * 2
    while first * ELEMENTS < n:  # four of each half of a warp at once: loads on the way
        b = first + half
        top0, odd0 = note_maximum(maxima, x, n, b)
        top1, odd1 = note_maximum(maxima, x, n, b + apart)
        top2, odd2 = note_maximum(maxima, x, n, b + 2 * apart)
        top3, odd3 = note_maximum(maxima, x, n, b + 3 * apart)
        best = maximum(best, maximum(maximum(top0, top1), maximum(top2, top3)))
        strange += odd0 + odd1 + odd2 + odd3
        first += 4 * apart
    return block_max(best), block_sum_i64(strange)


@device_function
def rank(v: float) -> int:
    """Return a number that grows with a float32; NaN counts as -inf, and zeros are alike.

    Shapes: none.
    """
    if not v == v:
        return rank_of(single(-math.inf))
    return rank_of(plus(v, single(0.0)))


@device_function
def key_of(v: float, i: int) -> int:
    """Return the key of an element."""
    return rank(v) << 31 | INDEX - i


@device_function
def index_of(key: int) -> int:
    """Return the index of the element that has a key."""
    return INDEX - (key & INDEX)


@device_function
def count_keys(x: int, maxima: int, n: int, low: int, high: int) -> int:
    """Count the elements whose keys are from low on and below high.

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``.
    """
    count, lane, b = 0, thread_index() % LANES, thread_index() // LANES
    while b * ELEMENTS < n:
        if rank(get_f32(maxima + 4 * b)) >= low >> 31:
            i = b * ELEMENTS + lane
            for _ in range(4):
                if i < n:
                    key = key_of(get_f32(x + 4 * i), i)
                    if key >= low and key < high:
                        count += 1
                i += LANES
        b += block_size() // LANES
    return block_sum_i64(count)


@device_function
def take_keys(x: int, maxima: int, n: int, low: int, high: int) -> int:
    """Put the keys from low on and below high into shared memory, in no order; return how many there are.

    Shapes: as ``count_keys``, which must have found at most CAPACITY.
    """
    place, keys = shared_memory() + COUNTER, shared_memory() + KEYS
    if thread_index() == 0:
        put_shared_i32(place, 0)
    syncthreads()
    lane, b = thread_index() % LANES, thread_index() // LANES
    while b * ELEMENTS < n:
        if rank(get_f32(maxima + 4 * b)) >= low >> 31:
            i = b * ELEMENTS + lane
            for _ in range(4):
                if i < n:
                    key = key_of(get_f32(x + 4 * i), i)
                    if key >= low and key < high:
                        put_shared_i64(keys + 8 * add_shared(place, 1), key)
                i += LANES
        b += block_size() // LANES
    syncthreads()
    return get_shared_i32(place)


@device_function
def sort_keys(count: int) -> None:
    """Sort the keys in shared memory, the largest first, by Batcher's bitonic merges."""
    keys, size = shared_memory() + KEYS, 1
    while size < count:
        size *= 2
    i = count + thread_index()
    while i < size:
        put_shared_i64(keys + 8 * i, 0)  # behind all others
        i += block_size()
    syncthreads()
    run = 2
    while run <= size:
        apart = run // 2
        while apart > 0:
            pair = thread_index()
            while pair < size // 2:
                i = 2 * pair - (pair & (apart - 1))
                a, b = get_shared_i64(keys + 8 * i), get_shared_i64(keys + 8 * (i + apart))
                if (a < b) == (i & run == 0):
                    put_shared_i64(keys + 8 * i, b)
                    put_shared_i64(keys + 8 * (i + apart), a)
                pair += block_size()
            syncthreads()
            apart //= 2
        run *= 2


@device_function
def low_of_maxima(maxima: int, blocks: int, k: int) -> int:
    """Return a key that at least k maxima reach, and not many more: so at least k elements do.

    Shapes: maxima float32 (blocks,), k <= blocks.
    """
    low, high, count = 0, 1 << 32, blocks
    while high - low > 1 and count > 2 * k:
        middle = (low + high) // 2
        own, b = 0, thread_index()
        while b < blocks:
            if rank(get_f32(maxima + 4 * b)) >= middle:
                own += 1
            b += block_size()
        found = block_sum_i64(own)
        if found >= k:
            low, count = middle, found
        else:
            high = middle
    return low << 31


@device_function
def largest_keys(x: int, maxima: int, n: int, k: int, high: int) -> int:
    """Put the k largest keys below high, or some more, into shared memory, in order; return how many they are.

    Fewer where there are fewer below high. At most CAPACITY, which k must not exceed.

    Shapes: x float32 (n,); maxima float32 (ceil(n / 64),) by ``block_maxima``.
    """
    low, blocks = 0, (n + ELEMENTS - 1) // ELEMENTS
    if high == TOP and k <= blocks:
        low = low_of_maxima(maxima, blocks, k)
    count, beyond = count_keys(x, maxima, n, low, high), high
    while count > CAPACITY:
        middle = low + (beyond - low) // 2
        found = count_keys(x, maxima, n, middle, high)
        if found >= k:
            low, count = middle, found
        else:
            beyond = middle
    count = take_keys(x, maxima, n, low, high)
    sort_keys(count)
    return count


@device_function
def key_at(i: int) -> int:
    """Return key i in shared memory."""
    return get_shared_i64(shared_memory() + KEYS + 8 * i)
