"""Sums, minima and prefixes of whole numbers and float64 over the threads of a block, the same ones for every thread.

All of them take the first SCRATCH bytes of shared memory; whoever uses them next may at once.
"""

from __future__ import annotations

from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda.ptx import (
    WARP,
    block_size,
    get_shared_f64,
    get_shared_i64,
    put_shared_f64,
    put_shared_i64,
    shared_memory,
    shuffle_up_f64,
    shuffle_xor_f64,
    shuffle_xor_i64,
    syncthreads,
    thread_index,
)

SCRATCH = 8 * 32


@device_function
def block_sum_i64(x: int) -> int:
    """Sum over the threads of a block."""
    place = shared_memory()
    for bit in range(5):
        x = x + shuffle_xor_i64(x, 1 << bit)
    if thread_index() % WARP == 0:
        put_shared_i64(place + 8 * (thread_index() // WARP), x)
    syncthreads()
    total = 0
    for warp in range(block_size() // WARP):
        total += get_shared_i64(place + 8 * warp)
    syncthreads()
    return total


@device_function
def block_min_i64(x: int) -> int:
    """Return the smallest of the threads of a block."""
    place = shared_memory()
    for bit in range(5):
        x = min(x, shuffle_xor_i64(x, 1 << bit))
    if thread_index() % WARP == 0:
        put_shared_i64(place + 8 * (thread_index() // WARP), x)
    syncthreads()
    least = get_shared_i64(place)
    for warp in range(1, block_size() // WARP):
        least = min(least, get_shared_i64(place + 8 * warp))
    syncthreads()
    return least


@device_function
def block_sum_f64(x: float) -> float:
    """Sum over the threads of a block: of each warp, then of the warps in order."""
    place = shared_memory()
    for bit in range(5):
        x = x + shuffle_xor_f64(x, 1 << bit)
    if thread_index() % WARP == 0:
        put_shared_f64(place + 8 * (thread_index() // WARP), x)
    syncthreads()
    total = 0.0
    for warp in range(block_size() // WARP):
        total += get_shared_f64(place + 8 * warp)
    syncthreads()
    return total


@device_function
def sum_before_f64(x: float) -> float:
    """Return the sum over the threads of a block that come before, 0 for the first."""
    place, lane, me = shared_memory(), thread_index() % WARP, thread_index() // WARP
    total = x
    for bit in range(5):
        other = shuffle_up_f64(total, 1 << bit)
        if lane >= 1 << bit:
            total = total + other
    if lane == WARP - 1:
        put_shared_f64(place + 8 * me, total)
    syncthreads()
    before = 0.0
    for warp in range(me):
        before += get_shared_f64(place + 8 * warp)
    syncthreads()
    own = shuffle_up_f64(total, 1)
    if lane > 0:
        before += own
    return before
