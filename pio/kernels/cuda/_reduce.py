"""Sums and maxima over the threads of a block, the same ones for every thread."""

from __future__ import annotations

from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda.ptx import (
    WARP,
    block_size,
    get_shared_f32,
    put_shared_f32,
    shared_memory,
    shuffle_xor,
    single,
    syncthreads,
    thread_index,
)


@device_function
def warp_sum(x: float) -> float:
    """Sum over the lanes of a warp: of neighbours first, then of pairs, and so on."""
    for bit in range(5):
        x = x + shuffle_xor(x, 1 << bit)
    return x


@device_function
def block_sum(x: float) -> float:
    """Sum over the threads of a block: of each warp, then of the warps in order.

    Takes the first 4 * 32 bytes of shared memory; whoever uses them next may at once.
    """
    place = shared_memory()
    total = warp_sum(x)
    if thread_index() % WARP == 0:
        put_shared_f32(place + 4 * (thread_index() // WARP), total)
    syncthreads()
    total = single(0.0)
    for warp in range(block_size() // WARP):
        total = total + get_shared_f32(place + 4 * warp)
    syncthreads()
    return total
