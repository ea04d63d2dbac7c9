"""Rows chosen by index, as ``pio.kernels.gather``: read, added up, and grouped by a key."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel, cuda_kernel_per_dtype, device_function
from pio.kernels.cuda._quads import load_four_of, load_four_weights, store_four_of
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    get_f32,
    get_i32,
    get_i64,
    get_shared_i32,
    get_shared_i64,
    grid_size,
    itemsize,
    lower_shared,
    put_f32,
    put_i32,
    put_i64,
    put_shared_i32,
    put_shared_i64,
    quotient,
    shared_memory,
    single,
    syncthreads,
    thread_index,
)

BLOCK = 256
CLASSES = 16  # into which rows of a table are dealt
NOWHERE = 1 << 62


@device_function
def index_at(indices: int, i: int, wide: int) -> int:
    """Return indices[i].

    Shapes: indices int64 (n,) if wide, else int32 (n,).
    """
    if wide != 0:
        return get_i64(indices + 8 * i)
    return get_i32(indices + 4 * i)


@device_function
def first_index_outside(indices: int, n: int, wide: int, limit: int) -> int:
    """Return the first i with indices[i] < 0 or indices[i] >= limit, or -1, to every thread of a block.

    Shapes: indices (n,), int64 if wide, else int32. Takes the first 8 bytes of shared memory.
    """
    place = shared_memory()
    if thread_index() == 0:
        put_shared_i64(place, NOWHERE)
    syncthreads()
    i = thread_index()
    while i < n:
        index = index_at(indices, i, wide)
        if index < 0 or index >= limit:
            lower_shared(place, i)
            break
        i += block_size()
    syncthreads()
    found = get_shared_i64(place)
    return found if found < NOWHERE else -1


@cuda_kernel(blocks=1, shared=8)
def first_outside(found: int, indices: int, n: int, wide: int, limit: int) -> None:
    """Find an index that is out of range: found[0] = min({i: indices[i] < 0 or indices[i] >= limit}), or -1.

    Shapes: found int64 (1,); indices (n,), int64 if wide, else int32. One block does all.
    """
    if block_index() == 0:
        at = first_index_outside(indices, n, wide, limit)
        if thread_index() == 0:
            put_i64(found, at)


@cuda_kernel(blocks=1, shared=8)
def stop_outside(stop: int, indices: int, n: int, wide: int, limit: int) -> None:
    """Stop a recorded step at an index that is out of range: stop[0] = 1 + first_outside(indices), 0 where none is.

    Shapes: stop int64 (1,); indices as ``first_outside``. One block does all.
    """
    if block_index() == 0:
        at = first_index_outside(indices, n, wide, limit)
        if thread_index() == 0:
            put_i64(stop, at + 1)


@cuda_kernel_per_dtype
def gather(out: int, table: int, indices: int, n: int, dim: int, wide: int) -> None:
    """Read rows of a table as float32.

    out[i] = table[indices[i]]

    Shapes: out float32 (n, dim); table (rows, dim) of the kernel's type; indices (n,), int64 if wide, else int32.
    Fours of all rows are dealt to threads.
    """
    fours = (dim + 3) // 4
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < n * fours:
        i = quotient(item, fours)
        c = 4 * (item - i * fours)
        v0, v1, v2, v3 = load_four_weights(table + itemsize * index_at(indices, i, wide) * dim, c, dim)
        store_four_of(out + 4 * i * dim, c, dim, v0, v1, v2, v3)
        item += step


@cuda_kernel
def place_rows(out: int, rows: int, n: int, dim: int) -> None:
    """Overwrite rows by others that lie anywhere.

    out[i] = *rows[i]  where rows[i] is not 0

    Shapes: out float32 (n, dim); rows int64 (n,), each 0 or the address of float32 (dim,). No row may overlap out.
    """
    fours = (dim + 3) // 4
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < n * fours:
        i = quotient(item, fours)
        c, row = 4 * (item - i * fours), get_i64(rows + 8 * i)
        if row != 0:
            v0, v1, v2, v3 = load_four_of(row, c, dim, single(0.0))
            store_four_of(out + 4 * i * dim, c, dim, v0, v1, v2, v3)
        item += step


@cuda_kernel
def add_rows(out: int, rows: int, n: int, dim: int) -> None:
    """Add rows that lie anywhere to others.

    out[i] += *rows[i]  where rows[i] is not 0

    Shapes: out float32 (n, dim); rows int64 (n,), each 0 or the address of float32 (dim,). No row may overlap out.
    """
    fours = (dim + 3) // 4
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < n * fours:
        i = quotient(item, fours)
        c, row, to = 4 * (item - i * fours), get_i64(rows + 8 * i), out + 4 * i * dim
        if row != 0:
            v0, v1, v2, v3 = load_four_of(row, c, dim, single(0.0))
            a, b, d, e = load_four_of(to, c, dim, single(0.0))
            store_four_of(to, c, dim, a + v0, b + v1, d + v2, e + v3)
        item += step


@cuda_kernel
def scatter_add(out: int, indices: int, x: int, scales: int, n: int, dim: int, wide: int) -> None:
    """Add rows to the rows of a table.

    out[indices[i], c] += x[i, c] (* scales[i] if scales is not 0)  for i = 0, 1, ...

    Shapes: out float32 (rows, dim); indices (n,), int64 if wide, else int32; x float32 (n, dim); scales float32 (n,).
    Sums in float32 in the order of i. out must not overlap x. A thread has a column of every CLASSES-th row of the
    table and walks all indices, so that one that comes twice adds up in the same order.
    """
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < CLASSES * dim:
        own = quotient(item, dim)
        c = item - own * dim
        for i in range(n):
            row = index_at(indices, i, wide)
            if row & (CLASSES - 1) == own:
                scale = get_f32(scales + 4 * i) if scales != 0 else single(1.0)
                put_sum(out + 4 * (row * dim + c), x + 4 * (i * dim + c), scale)
        item += step


@device_function
def put_sum(place: int, x: int, scale: float) -> None:
    """Add a multiple of a number to another.

    Shapes: both float32.
    """
    put_f32(place, fma(get_f32(x), scale, get_f32(place)))


@cuda_kernel(blocks=1, shared=4 * BLOCK)
def count_value(found: int, keys: int, n: int, value: int, wide: int) -> None:
    """Count the keys that equal a value: found[0].

    Shapes: found int64 (1,); keys (n,), int64 if wide, else int32. One block does all.
    """
    if block_index() == 0:
        first, last = stretch_of(n)
        total = 0
        for i in range(first, last):
            total += 1 if index_at(keys, i, wide) == value else 0
        before = count_before(total)
        if thread_index() == block_size() - 1:
            put_i64(found, before + total)


@cuda_kernel(blocks=1, shared=4 * BLOCK)
def find_value(indices: int, keys: int, n: int, value: int, wide: int) -> None:
    """List the positions of the keys that equal a value, in order.

    Shapes: indices int32 (as many as ``count_value`` has found,); keys (n,), int64 if wide, else int32. One block does
    all, a stretch of keys each thread.
    """
    if block_index() == 0:
        first, last = stretch_of(n)
        total = 0
        for i in range(first, last):
            total += 1 if index_at(keys, i, wide) == value else 0
        at = count_before(total)
        for i in range(first, last):
            if index_at(keys, i, wide) == value:
                put_i32(indices + 4 * at, i)
                at += 1


@device_function
def stretch_of(n: int) -> tuple[int, int]:
    """Return where a thread's stretch of n numbers begins and ends."""
    length = (n + BLOCK - 1) // BLOCK
    first = min(thread_index() * length, n)
    return first, min(first + length, n)


@device_function
def count_before(count: int) -> int:
    """Return the sum of what the threads before have counted, of a block of BLOCK.

    Takes the first 4 * BLOCK bytes of shared memory.
    """
    place, me = shared_memory(), thread_index()
    put_shared_i32(place + 4 * me, count)
    syncthreads()
    total = 0
    for i in range(me):
        total += get_shared_i32(place + 4 * i)
    syncthreads()
    return total
