"""Rows chosen by index: read, added up, and grouped by a key."""

from __future__ import annotations

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.parallel import parallel_kernel, parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    fma,
    get_f32,
    get_i32,
    get_i64,
    itemsize,
    load,
    load_f32,
    load_part,
    load_part_f32,
    put_i32,
    put_i64,
    splat,
    store_f32,
    store_part_f32,
)


@kernel
def index_at(indices: int, i: int, wide: int) -> int:
    """Return indices[i].

    Shapes: indices int64 (n,) if wide, else int32 (n,).
    """
    if wide != 0:
        return get_i64(indices + 8 * i)
    return get_i32(indices + 4 * i)


@kernel
def first_outside(indices: int, n: int, wide: int, limit: int) -> int:
    """Return the first i with indices[i] < 0 or indices[i] >= limit, or -1.

    Shapes: indices (n,), int64 if wide, else int32.
    """
    for i in range(n):
        index = index_at(indices, i, wide)
        if index < 0 or index >= limit:
            return i
    return -1


@parallel_kernel
def stop_outside(stop: int, indices: int, n: int, wide: int, limit: int, part: int, parts: int) -> None:
    """Stop a recorded step at an index that is out of range: stop[0] = 1 + first_outside(indices), 0 where none is.

    Shapes: stop int64 (1,); indices as ``first_outside``. The first part does all.
    """
    if part == 0:
        put_i64(stop, first_outside(indices, n, wide, limit) + 1)


@kernel_per_dtype
def widen_row(out: int, x: int, n: int) -> None:
    """Convert a row to float32.

    out[i] = x[i]

    Shapes: x (n,) of the kernel's type; out float32 (n,).
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(out + 4 * i, load(x + itemsize * i))
    if n > whole:
        store_part_f32(out + 4 * whole, load_part(x + itemsize * whole, n - whole), n - whole)


widen_row_f32 = widen_row["float32"]


@kernel_per_dtype
def gather_rows(out: int, table: int, indices: int, first: int, last: int, dim: int, wide: int) -> None:
    """Read rows of a table as float32.

    out[i] = table[indices[i]],  first <= i < last

    Shapes: out float32 (n, dim); table (rows, dim) of the kernel's type; indices (n,), int64 if wide, else int32.
    """
    for i in range(first, last):
        widen_row(out + 4 * i * dim, table + itemsize * index_at(indices, i, wide) * dim, dim)


@parallel_kernel_per_dtype
def gather(out: int, table: int, indices: int, n: int, dim: int, wide: int, part: int, parts: int) -> None:
    """Read rows of a table as float32, split over threads.

    Shapes: as ``gather_rows``.
    """
    gather_rows(out, table, indices, part * n // parts, (part + 1) * n // parts, dim, wide)


@parallel_kernel
def place_rows(out: int, rows: int, n: int, dim: int, part: int, parts: int) -> None:
    """Overwrite rows by others that lie anywhere, rows split over threads.

    out[i] = *rows[i]  where rows[i] is not 0

    Shapes: out float32 (n, dim); rows int64 (n,), each 0 or the address of float32 (dim,). No row may overlap out.
    """
    for i in range(part * n // parts, (part + 1) * n // parts):
        row = get_i64(rows + 8 * i)
        if row != 0:
            widen_row_f32(out + 4 * i * dim, row, dim)


@kernel
def add_scaled(out: int, x: int, first: int, last: int, scale: float) -> None:
    """Add a multiple of a vector to another.

    out[c] += scale * x[c],  first <= c < last

    Shapes: x, out float32 (dim,).
    """
    factor = splat(scale)
    whole = last - (last - first) % LANES
    for i in range(4 * first, 4 * whole, 4 * LANES):
        store_f32(out + i, fma(load_f32(x + i), factor, load_f32(out + i)))
    if last > whole:
        i, n = 4 * whole, last - whole
        store_part_f32(out + i, fma(load_part_f32(x + i, n), factor, load_part_f32(out + i, n)), n)


@parallel_kernel
def add_rows(out: int, rows: int, n: int, dim: int, part: int, parts: int) -> None:
    """Add rows that lie anywhere to others, rows split over threads.

    out[i] += *rows[i]  where rows[i] is not 0

    Shapes: out float32 (n, dim); rows int64 (n,), each 0 or the address of float32 (dim,). No row may overlap out.
    """
    for i in range(part * n // parts, (part + 1) * n // parts):
        row = get_i64(rows + 8 * i)
        if row != 0:
            add_scaled(out + 4 * i * dim, row, 0, dim, 1.0)


@kernel
def scatter_add_columns(
    out: int, indices: int, x: int, scales: int, n: int, first: int, last: int, dim: int, wide: int
) -> None:
    """Add rows to the rows of a table.

    out[indices[i], c] += x[i, c] (* scales[i] if scales is not 0)  for i = 0, 1, ...,  first <= c < last

    Shapes: out float32 (rows, dim); indices (n,), int64 if wide, else int32; x float32 (n, dim); scales float32 (n,).
    Sums in float32 in the order of i. out must not overlap x.
    """
    for i in range(n):
        scale = get_f32(scales + 4 * i) if scales != 0 else 1.0
        add_scaled(out + 4 * index_at(indices, i, wide) * dim, x + 4 * i * dim, first, last, scale)


@parallel_kernel
def scatter_add(
    out: int, indices: int, x: int, scales: int, n: int, dim: int, wide: int, part: int, parts: int
) -> None:
    """Add rows to the rows of a table, columns split over threads.

    Shapes: as ``scatter_add_columns``.

    Each thread walks all indices, so that one that comes twice adds up in the same order.
    """
    first, last = part * dim // parts, (part + 1) * dim // parts
    scatter_add_columns(out, indices, x, scales, n, first, last, dim, wide)


@kernel
def count_value(keys: int, n: int, value: int, wide: int) -> int:
    """Count the keys that equal a value.

    Shapes: keys (n,), int64 if wide, else int32.
    """
    count = 0
    for i in range(n):
        if index_at(keys, i, wide) == value:
            count += 1
    return count


@kernel
def find_value(indices: int, keys: int, n: int, value: int, wide: int) -> None:
    """List the positions of the keys that equal a value, in order.

    Shapes: indices int32 (count_value(keys, ...),); keys (n,), int64 if wide, else int32.
    """
    found = 0
    for i in range(n):
        if index_at(keys, i, wide) == value:
            put_i32(indices + 4 * found, i)
            found += 1
