"""Stretches of positions: what a block knows of its queries, and how results of one stretch join those before it.

A block takes up to ROWS queries that see the keys of one head, and walks stretches of STRETCH positions, each with its
own largest score and sum; its four warps have a quarter of a stretch each. Stretches begin at multiples of STRETCH, are
computed alike whoever computes them, and join as ``_runs`` says: so a query's bits depend on its sequence alone.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
from __future__ import annotations

import math

from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda.ptx import (
    WARP,
    exp2,
    fma,
    get_f32,
    get_shared_f32,
    get_shared_i32,
    get_shared_i64,
    maximum,
    prefetch,
    put_f32,
    put_shared_f32,
    put_shared_i32,
    put_shared_i64,
    reciprocal,
    shared_memory,
    shuffle_xor,
    single,
    syncthreads,
    thread_index,
)
from pio.kernels.cuda.ptx.fragments import QUERIES
from pio.kernels.cuda.ptx.score_tiles import largest_two, powers, seen_scores, store_tile, total_two

WARPS = 4
THREADS = WARPS * WARP
ROWS = 3 * QUERIES  # of a block, at most
QUARTER = 64  # positions of a warp
STRETCH = WARPS * QUARTER
CHUNK = 64  # numbers of values that are summed together
LOG2_E = 1.4426950408889634
LEAST = -3e38  # below every score that counts, and finite: it can be subtracted from -inf
SKIP = -1.0  # in place of what a stretch grows by, where a query sees nothing of it

# Shared memory of a block, in bytes: sums of a chunk of a quarter, rows apart so that banks differ; then of each row
# its first position and the one behind its last, where its result goes, a unit of its scores, the largest and the sum
# so far, what these are to be multiplied by, and what is put aside during a run of stretches: the largest, the sum and
# where the result goes; of each warp and row the largest and the sum; a flag.
STAGE_ROW = 4 * (CHUNK + 4)
STAGE_BYTES = WARPS * QUERIES * STAGE_ROW
ROW_FIELDS = 11
FIRST, LAST, PLACE, UNIT, MOST, TOTAL, SHRINK, GROW, OUTER_MOST, OUTER_TOTAL, OUTER_PLACE = (
    STAGE_BYTES + 4 * ROWS * i for i in range(ROW_FIELDS)
)
MAXIMA = STAGE_BYTES + ROW_FIELDS * 4 * ROWS
SUMS = MAXIMA + 4 * WARPS * ROWS
FLAG = SUMS + 4 * WARPS * ROWS
# What a block works on, int64 each: a sequence, the table of its blocks, its key/value head; the first of its rows and
# how many; the first position that any of them sees, and the one behind the last; the slot where outputs of a run go;
# where those of all runs go, 0 for nowhere, how far apart, and how many; the run to take, the address of a counter of
# those who are done. Then how far the block has come in the batch: items, bytes of scratch and counters of sequences
# before this one.
WORK = FLAG + 16
SEQUENCE, TABLE, HEAD, ROW, COUNT, OLDEST, END, INTO, SLOTS, APART, RUNS, ONLY, COUNTER, ITEMS, USED, COUNTED = (
    WORK + 8 * i for i in range(16)
)
QUERY_AREA = WORK + 8 * 16  # queries are behind all else


@device_function
def work(field: int) -> int:
    """Read a field of what the block works on: it is not kept in registers, which are scarce."""
    return get_shared_i64(shared_memory() + field)


@device_function
def put_work(field: int, value: int) -> None:
    """Write a field of what the block works on; one thread does it."""
    put_shared_i64(shared_memory() + field, value)


@device_function
def begin_work() -> None:
    """Begin with the first sequence; one thread does it."""
    put_work(SEQUENCE, 0)
    put_work(ITEMS, 0)
    put_work(USED, 0)
    put_work(COUNTED, 0)


@device_function
def note_work(s: int, items: int, used: int, counted: int) -> None:
    """Note how far the block has come: what it takes next is not before."""
    put_work(SEQUENCE, s)
    put_work(ITEMS, items)
    put_work(USED, used)
    put_work(COUNTED, counted)


@device_function
def prefetch_lines(address: int, nbytes: int) -> None:
    """Ask for a block of a cache, which a warp reads soon."""
    at = 128 * (thread_index() % WARP)
    while at < nbytes:
        prefetch(address + at)
        at += 128 * WARP


@device_function
def put_row(row: int, first: int, last: int, place: int) -> None:
    """Begin a row: it sees positions first <= j < last, and has seen nothing yet."""
    at = shared_memory() + 4 * row
    put_shared_i32(at + FIRST, first)
    put_shared_i32(at + LAST, last)
    put_shared_i32(at + PLACE, place)
    put_shared_f32(at + MOST, single(-math.inf))
    put_shared_f32(at + TOTAL, single(0.0))


@device_function
def put_maxima(tile: int, scores: tuple[float, ...]) -> None:
    """Note the largest scores of a warp's quarter, of the queries of a tile."""
    x, y = largest_two(scores)
    for bit in range(2, 5):
        x, y = maximum(x, shuffle_xor(x, 1 << bit)), maximum(y, shuffle_xor(y, 1 << bit))
    put_two(MAXIMA, tile, x, y)


@device_function
def put_sums(tile: int, chances: tuple[float, ...]) -> None:
    """Note the sums of a warp's quarter, of the queries of a tile."""
    x, y = total_two(chances)
    for bit in range(2, 5):
        x, y = x + shuffle_xor(x, 1 << bit), y + shuffle_xor(y, 1 << bit)
    put_two(SUMS, tile, x, y)


@device_function
def put_two(where: int, tile: int, x: float, y: float) -> None:
    """Write two numbers of a warp, of the queries that the lane's column has."""
    lane, warp = thread_index() % WARP, thread_index() // WARP
    if lane < 4:
        at = shared_memory() + where + 4 * (ROWS * warp + QUERIES * tile + 2 * lane)
        put_shared_f32(at, x)
        put_shared_f32(at + 4, y)


@device_function
def stretch_most(row: int) -> float:
    """The largest score of a stretch, of all warps."""
    at = shared_memory() + MAXIMA + 4 * row
    most = get_shared_f32(at)
    for warp in range(1, WARPS):
        most = maximum(most, get_shared_f32(at + 4 * ROWS * warp))
    return most


@device_function
def base_of(most: float) -> float:
    """What powers are taken above: of nothing but -inf a number that can be subtracted from it."""
    return maximum(most, single(LEAST))


@device_function
def see(scores, tile, position):  # type: ignore[no-untyped-def]
    """Hide what the queries of a tile do not see, and bring scores to powers of two."""
    at = shared_memory() + 4 * (QUERIES * tile + 2 * (thread_index() % 4))
    first0, first1 = get_shared_i32(at + FIRST), get_shared_i32(at + FIRST + 4)
    last0, last1 = get_shared_i32(at + LAST), get_shared_i32(at + LAST + 4)
    unit0, unit1 = get_shared_f32(at + UNIT), get_shared_f32(at + UNIT + 4)
    return seen_scores(scores, position, unit0, unit1, first0, last0, first1, last1)


@device_function
def chances_of(scores, tile):  # type: ignore[no-untyped-def]
    """Probabilities above the largest score of the stretch."""
    row = QUERIES * tile + 2 * (thread_index() % 4)
    return powers(scores, base_of(stretch_most(row)), base_of(stretch_most(row + 1)))


@device_function
def join(row: int, most: float, total: float) -> None:
    """Let a row's largest score and sum see those of a stretch, and note what joins the outputs of both.

    m' = max(m, most); shrink = 2^(m - m'), what was summed so far counts by; grow = 2^(most - m'), the stretch does
    """
    at = shared_memory() + 4 * row
    if most == single(-math.inf) and total == single(0.0):
        put_shared_f32(at + SHRINK, single(1.0))
        put_shared_f32(at + GROW, single(SKIP))
        return
    old = get_shared_f32(at + MOST)
    new = maximum(old, most)
    base = base_of(new)
    shrink, grow = exp2(old - base), exp2(most - base)
    put_shared_f32(at + SHRINK, shrink)
    put_shared_f32(at + GROW, grow)
    put_shared_f32(at + MOST, new)
    put_shared_f32(at + TOTAL, fma(get_shared_f32(at + TOTAL), shrink, total * grow))


@device_function
def join_stretch(rows: int) -> None:
    """Let all rows see the stretch of which all warps have noted maxima and sums."""
    row = thread_index()
    if row < rows:
        at, total = shared_memory() + SUMS + 4 * row, single(0.0)
        for warp in range(WARPS):
            total = total + get_shared_f32(at + 4 * ROWS * warp)
        join(row, stretch_most(row), total)


@device_function
def joined(old: float, found: float, shrink: float, grow: float) -> float:
    """An output and that of a further stretch, together."""
    return old if grow == single(SKIP) else fma(old, shrink, found * grow)


@device_function
def add_chunk(into: int, tile: int, chunk: int, rows: int, n: int, fresh: int) -> None:
    """Add the sums of a chunk of all quarters, which lie staged, to the outputs of a tile's queries.

    Shapes: into float32 (..., n), of which PLACE says which row is a query's; with fresh what is there counts as zeros.
    A thread finds what it has written itself.
    """
    query, first = thread_index() // 16, thread_index() % 16
    row = QUERIES * tile + query
    if row >= rows:
        return
    at = shared_memory() + 4 * row
    shrink, grow = get_shared_f32(at + SHRINK), get_shared_f32(at + GROW)
    place = into + 4 * n * get_shared_i32(at + PLACE)
    for j in range(CHUNK // 16):
        d = first + 16 * j
        staged = shared_memory() + query * STAGE_ROW + 4 * d
        found = single(0.0)
        for warp in range(WARPS):
            found = found + get_shared_f32(staged + QUERIES * STAGE_ROW * warp)
        to = place + 4 * (chunk * CHUNK + d)
        if chunk * CHUNK + d < n:
            old = single(0.0) if fresh != 0 else get_f32(to)
            put_f32(to, joined(old, found, shrink, grow))


@device_function
def stage_tile(into, sums, tile, chunk, rows, n, fresh):  # type: ignore[no-untyped-def]
    """Add a chunk of a tile's sums to its outputs; all threads of the block must call it."""
    lane, warp = thread_index() % WARP, thread_index() // WARP
    store_tile(shared_memory() + (QUERIES * warp + 2 * (lane % 4)) * STAGE_ROW + 32 * (lane // 4), sums, STAGE_ROW)
    syncthreads()
    add_chunk(into, tile, chunk, rows, n, fresh)
    syncthreads()


@device_function
def finish_rows(into: int, rows: int, n: int) -> None:
    """Divide the outputs of all rows by their sums; a thread finds what it has written itself in ``add_chunk``.

    Shapes: as in ``add_chunk``.
    """
    for tile in range(ROWS // QUERIES):
        row = QUERIES * tile + thread_index() // 16
        if row < rows:
            at = shared_memory() + 4 * row
            factor = reciprocal(get_shared_f32(at + TOTAL))
            place, d = into + 4 * n * get_shared_i32(at + PLACE), thread_index() % 16
            while d < n:
                put_f32(place + 4 * d, get_f32(place + 4 * d) * factor)
                d += 16
