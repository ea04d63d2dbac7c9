"""Parts of rows: what several blocks have found in runs of one sequence, and how whoever ends last joins it."""

from __future__ import annotations

from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda._stretches import (
    FLAG,
    GROW,
    MOST,
    PLACE,
    ROWS,
    SHRINK,
    THREADS,
    TOTAL,
    join,
    joined,
)
from pio.kernels.cuda.ptx import (
    atomic_add,
    fence,
    get_f32,
    get_others_f32,
    get_shared_f32,
    get_shared_i32,
    put_f32,
    put_shared_f32,
    put_shared_i32,
    reciprocal,
    shared_memory,
    single,
    syncthreads,
    thread_index,
)

AT_ONCE = 32  # runs whose outputs are joined together
FACTORS = 0  # where their factors are staged: float32 (AT_ONCE, ROWS, 2)


@device_function
def keep_part(slot: int, rows: int, n: int) -> None:
    """Write the largest scores and the sums of a run behind its outputs.

    Shapes: slot float32 (rows, n), and then (2, rows).
    """
    row = thread_index()
    if row < rows:
        at, to = shared_memory() + 4 * row, slot + 4 * (rows * n + row)
        put_f32(to, get_shared_f32(at + MOST))
        put_f32(to + 4 * rows, get_shared_f32(at + TOTAL))


@device_function
def join_parts(into: int, slots: int, count: int, apart: int, rows: int, n: int) -> None:
    """Join the outputs of runs that several blocks have computed, in order, and divide them by their sums.

    Shapes: into as in ``add_chunk``, whose rows have been begun anew; slots (count,) as in ``keep_part``, ``apart``
    bytes one behind the other. The stage of ``add_chunk`` is overwritten.
    """
    place, thread = shared_memory(), thread_index()
    begin = 0
    while begin < count:
        here = min(AT_ONCE, count - begin)
        if thread < rows:
            for i in range(here):
                at = slots + (begin + i) * apart + 4 * (rows * n + thread)
                join(thread, get_others_f32(at), get_others_f32(at + 4 * rows))
                to = place + FACTORS + 8 * (ROWS * i + thread)
                put_shared_f32(to, get_shared_f32(place + SHRINK + 4 * thread))
                put_shared_f32(to + 4, get_shared_f32(place + GROW + 4 * thread))
        syncthreads()
        e = thread
        while e < rows * n:
            row = e // n
            to = into + 4 * (n * get_shared_i32(place + PLACE + 4 * row) + e % n)
            total, at = single(0.0) if begin == 0 else get_f32(to), slots + begin * apart + 4 * e
            for i in range(here):
                factors = place + FACTORS + 8 * (ROWS * i + row)
                total = joined(
                    total, get_others_f32(at + i * apart), get_shared_f32(factors), get_shared_f32(factors + 4)
                )
            if begin + here == count:
                total = total * reciprocal(get_shared_f32(place + TOTAL + 4 * row))
            put_f32(to, total)
            e += THREADS
        syncthreads()
        begin += AT_ONCE


@device_function
def all_there(counter: int, count: int) -> bool:
    """Count this block, and say whether it is the last of as many; then the counter, at that address, is zero again."""
    fence()
    syncthreads()
    flag = shared_memory() + FLAG
    if thread_index() == 0:
        before = atomic_add(counter, 1)
        if before == count - 1:
            atomic_add(counter, -count)
        put_shared_i32(flag, before)
    syncthreads()
    fence()
    return get_shared_i32(flag) == count - 1
