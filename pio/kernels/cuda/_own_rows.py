"""Rows that a block quantizes itself, in its shared memory, before it multiplies them: the records of ``quantize``.

Each warp quantizes the stretch of a row that it multiplies, so that no warp waits for another. All blocks do the same
again, each for itself; of few rows that takes less than a launch of its own, see ``sizes.gpu_own``.
"""

from __future__ import annotations

from pio.kernels._formats import EXPONENT, PAIR, RECORD, START
from pio.kernels.cuda._jit import device_function, device_function_per_dtype
from pio.kernels.cuda._quads import load_four_of
from pio.kernels.cuda._scales import BIAS, TOO_LARGE, larger, magnitude, power_of, whole_of
from pio.kernels.cuda.linear import FEW_SHARED, SPLITS
from pio.kernels.cuda.ptx import (
    WARP,
    ballot,
    get_shared_f32,
    of_bits,
    put_shared_f32,
    put_shared_i32,
    shared_memory,
    shuffle_xor_i32,
    single,
    syncwarp,
    thread_index,
)
from pio.kernels.cuda.quantize import NAN, end_of
from pio.kernels.sizes import GPU_OWN_BYTES, GPU_OWN_ROWS

LANES = PAIR // 4  # that share a pair
# Behind what few rows take of shared memory: from what the sums of each row's stretches start, then the records.
STARTS = FEW_SHARED
RECORDS = STARTS + 4 * SPLITS * GPU_OWN_ROWS
OWN_SHARED = RECORDS + GPU_OWN_BYTES


@device_function
def own_records() -> int:
    """Where the records of all rows begin."""
    return shared_memory() + RECORDS


@device_function_per_dtype
def put_pairs(records: int, p: int, last: int, a: float, b: float, c: float, d: float) -> int:
    """Quantize pair p and the one behind it, four numbers of each lane; 1 if a group holds no numbers.

    Shapes: records as ``_formats`` lays them out, of which those of pairs before last are written.
    """
    lane = thread_index() % WARP
    largest = larger(larger(magnitude(a), magnitude(b)), larger(magnitude(c), magnitude(d)))
    for bit in range(3):  # eight lanes have a group
        largest = larger(largest, shuffle_xor_i32(largest, 1 << bit))
    power = power_of(largest)
    w0, w1 = whole_of(a, largest, power), whole_of(b, largest, power)
    w2, w3 = whole_of(c, largest, power), whole_of(d, largest, power)
    total = w0 + w1 + w2 + w3
    for bit in range(3):
        total = total + shuffle_xor_i32(total, 1 << bit)
    own = p + lane // LANES
    if own < last:
        record = records + RECORD * own
        put_shared_i32(record + 4 * (lane % LANES), (w0 & 255) | (w1 & 255) << 8 | (w2 & 255) << 16 | w3 << 24)
        if lane % 8 == 0:
            end = record + PAIR + 4 * (lane // 8 % 2)
            put_shared_i32(end, power - (BIAS << EXPONENT))
            put_shared_i32(end + 8, end_of(total, power))
    return 1 if largest >= TOO_LARGE else 0


@device_function_per_dtype
def quantize_own(r: int, x: int, k: int) -> None:
    """Quantize a row as row r of the block; a warp may read the stretch that it multiplies at once.

    Shapes: x float32 (k,).
    """
    lane, warp, pairs = thread_index() % WARP, thread_index() // WARP, (k + PAIR - 1) // PAIR
    length = (pairs + SPLITS - 1) // SPLITS
    p, last = warp * length, min((warp + 1) * length, pairs)
    records, i, end = own_records() + r * (START + pairs * RECORD) + START, PAIR * p + 4 * lane, min(k, PAIR * last)
    bad, none = 0, single(0.0)
    while p < last:  # eight pairs are asked for before one is met
        a0, b0, c0, d0 = load_four_of(x, i, end, none)
        a1, b1, c1, d1 = load_four_of(x, i + 2 * PAIR, end, none)
        a2, b2, c2, d2 = load_four_of(x, i + 4 * PAIR, end, none)
        a3, b3, c3, d3 = load_four_of(x, i + 6 * PAIR, end, none)
        bad = bad | put_pairs(records, p, last, a0, b0, c0, d0)
        if p + 2 < last:
            bad = bad | put_pairs(records, p + 2, last, a1, b1, c1, d1)
        if p + 4 < last:
            bad = bad | put_pairs(records, p + 4, last, a2, b2, c2, d2)
        if p + 6 < last:
            bad = bad | put_pairs(records, p + 6, last, a3, b3, c3, d3)
        p += 8
        i += 8 * PAIR
    bad = ballot(bad)
    if lane == 0:
        put_shared_f32(shared_memory() + STARTS + 4 * (SPLITS * r + warp), of_bits(NAN if bad != 0 else 0))
    syncwarp()


@device_function
def own_start(r: int) -> float:
    """From what the sums of row r start: 0, or NaN where it holds what is no number."""
    total = single(0.0)
    for warp in range(SPLITS):
        total = total + get_shared_f32(shared_memory() + STARTS + 4 * (SPLITS * r + warp))
    return total
