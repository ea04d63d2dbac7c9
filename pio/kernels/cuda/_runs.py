"""Runs of stretches: what a long sequence is cut into, so that however long it is few results are kept apart.

Stretches of a run join each other first, then runs join in order of position. Where runs begin is a matter of position
alone, so a query's bits do not depend on who computes them:

    stretches      0 to 31   32 to 63   64 to 127   from 128 on
    in a run             1          2           4             8

262,144 positions are 176 runs. Where a sequence is split, a block takes a run and leaves what it found in a slot of
scratch. Where one block walks all of it, runs of several stretches go to a slot of the block's own, and from there into
what it has so far; a single stretch goes there at once, which is the same to the bit.
"""

from __future__ import annotations

import math

from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda._stretches import (
    GROW,
    MOST,
    OUTER_MOST,
    OUTER_PLACE,
    OUTER_TOTAL,
    PLACE,
    ROWS,
    SHRINK,
    TOTAL,
    join,
    joined,
)
from pio.kernels.cuda.ptx import (
    get_f32,
    get_shared_f32,
    get_shared_i32,
    put_f32,
    put_shared_f32,
    put_shared_i32,
    shared_memory,
    single,
    syncthreads,
    thread_index,
)
from pio.kernels.cuda.ptx.fragments import QUERIES


@device_function
def run_of(stretch: int) -> int:
    """Return which run a stretch belongs to."""
    if stretch < 32:
        return stretch
    if stretch < 64:
        return 16 + stretch // 2
    if stretch < 128:
        return 32 + stretch // 4
    return 48 + stretch // 8


@device_function
def first_of(run: int) -> int:
    """Return the first stretch of a run."""
    if run < 32:
        return run
    if run < 48:
        return 2 * (run - 16)
    if run < 64:
        return 4 * (run - 32)
    return 8 * (run - 48)


@device_function
def begin_run() -> None:
    """Put what all rows have so far aside, and begin anew with outputs counted from zero.

    All threads of the block must call it.
    """
    row, at = thread_index(), shared_memory() + 4 * thread_index()
    if row < ROWS:
        put_shared_f32(at + OUTER_MOST, get_shared_f32(at + MOST))
        put_shared_f32(at + OUTER_TOTAL, get_shared_f32(at + TOTAL))
        put_shared_i32(at + OUTER_PLACE, get_shared_i32(at + PLACE))
        put_shared_f32(at + MOST, single(-math.inf))
        put_shared_f32(at + TOTAL, single(0.0))
        put_shared_i32(at + PLACE, row)
    syncthreads()


@device_function
def end_run(into: int, slot: int, rows: int, n: int, fresh: int) -> None:
    """Let all rows see the run that ``begin_run`` began; with fresh there was nothing before.

    Shapes: into as in ``_stretches.add_chunk``; slot float32 (rows, n). All threads of the block must call it; each
    finds what it has written itself, in both.
    """
    row, at = thread_index(), shared_memory() + 4 * thread_index()
    if row < ROWS:
        most, total = get_shared_f32(at + MOST), get_shared_f32(at + TOTAL)
        put_shared_f32(at + MOST, get_shared_f32(at + OUTER_MOST))
        put_shared_f32(at + TOTAL, get_shared_f32(at + OUTER_TOTAL))
        put_shared_i32(at + PLACE, get_shared_i32(at + OUTER_PLACE))
        join(row, most, total)
    syncthreads()
    for tile in range(ROWS // QUERIES):
        row = QUERIES * tile + thread_index() // 16
        if row < rows:
            at = shared_memory() + 4 * row
            shrink, grow = get_shared_f32(at + SHRINK), get_shared_f32(at + GROW)
            to, source, d = into + 4 * n * get_shared_i32(at + PLACE), slot + 4 * n * row, thread_index() % 16
            while d < n:
                old = single(0.0) if fresh != 0 else get_f32(to + 4 * d)
                put_f32(to + 4 * d, joined(old, get_f32(source + 4 * d), shrink, grow))
                d += 16
    syncthreads()
