"""Four numbers of a row for each thread: sixteen bytes at once where rows are aligned, and the same sums where not.

A warp takes a row of up to SHORT numbers, a block a longer one: that depends on nothing but a row's length. A member
of a team takes every team-th four numbers.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportOperatorIssue=false
from __future__ import annotations

from pio.kernels.cuda._jit import device_function, device_function_per_dtype
from pio.kernels.cuda._reduce import block_sum, warp_sum
from pio.kernels.cuda.ptx import (
    WARP,
    block_index,
    block_size,
    get_f32,
    get_shared_f32,
    grid_size,
    itemsize,
    load,
    load_four,
    load_quad,
    maximum,
    put_f32,
    put_shared_f32,
    quad_bytes,
    shared_memory,
    shuffle_xor,
    single,
    store_four,
    syncthreads,
    thread_index,
)

SHORT = 512


@device_function
def team_of(n: int) -> tuple[int, int, int, int]:
    """Return a thread's place in its team, the team's threads, its first row, and how far its rows lie apart."""
    if n <= SHORT:
        warps = block_size() // WARP
        first = block_index() * warps + thread_index() // WARP
        return thread_index() % WARP, WARP, first, grid_size() * warps
    return thread_index(), block_size(), block_index(), grid_size()


@device_function
def team_sum(x: float, team: int) -> float:
    """Sum over the threads of a team; a block takes 4 * 32 bytes of shared memory, as ``block_sum``."""
    if team == WARP:
        return warp_sum(x)
    return block_sum(x)


@device_function
def warp_max(x: float) -> float:
    """Return the largest number of a warp; NaN is left out."""
    for bit in range(5):
        x = maximum(x, shuffle_xor(x, 1 << bit))
    return x


@device_function
def block_max(x: float) -> float:
    """Return the largest number of a block; NaN is left out. Memory as ``block_sum``."""
    place = shared_memory()
    top = warp_max(x)
    if thread_index() % WARP == 0:
        put_shared_f32(place + 4 * (thread_index() // WARP), top)
    syncthreads()
    top = get_shared_f32(place)
    for warp in range(1, block_size() // WARP):
        top = maximum(top, get_shared_f32(place + 4 * warp))
    syncthreads()
    return top


@device_function
def team_max(x: float, team: int) -> float:
    """Return the largest number of a team; NaN is left out."""
    if team == WARP:
        return warp_max(x)
    return block_max(x)


@device_function
def load_four_of(x: int, i: int, n: int, other: float) -> tuple[float, float, float, float]:
    """Read four numbers of a row from i on; behind its end there are others.

    Shapes: x float32 (n,).
    """
    at = x + 4 * i
    if i + 4 <= n and at & 15 == 0:
        return load_four(at)
    a = b = c = d = other
    if i < n:
        a = get_f32(at)
    if i + 1 < n:
        b = get_f32(at + 4)
    if i + 2 < n:
        c = get_f32(at + 8)
    if i + 3 < n:
        d = get_f32(at + 12)
    return a, b, c, d


@device_function
def store_four_of(x: int, i: int, n: int, a: float, b: float, c: float, d: float) -> None:
    """Write four numbers of a row from i on, or as many as it has.

    Shapes: x float32 (n,).
    """
    at = x + 4 * i
    if i + 4 <= n and at & 15 == 0:
        store_four(at, a, b, c, d)
        return
    if i < n:
        put_f32(at, a)
    if i + 1 < n:
        put_f32(at + 4, b)
    if i + 2 < n:
        put_f32(at + 8, c)
    if i + 3 < n:
        put_f32(at + 12, d)


@device_function_per_dtype
def load_four_weights(x: int, i: int, n: int) -> tuple[float, float, float, float]:
    """Read four numbers of a row from i on; behind its end there are zeros.

    Shapes: x (n,) of the kernel's type.
    """
    at = x + itemsize * i
    if i + 4 <= n and at % quad_bytes == 0:
        return load_quad(at)
    a = b = c = d = single(0.0)
    if i < n:
        a = load(at)
    if i + 1 < n:
        b = load(at + itemsize)
    if i + 2 < n:
        c = load(at + 2 * itemsize)
    if i + 3 < n:
        d = load(at + 3 * itemsize)
    return a, b, c, d
