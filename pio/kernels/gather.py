"""Rows chosen by index: read, added up, and grouped by a key."""

from __future__ import annotations

import ctypes

from numba import prange

from pio.kernels import _llvm as ll
from pio.kernels._jit import kernel, kernel_per_dtype, parallel_kernel, parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    fma,
    get_f32,
    get_i32,
    int64,
    itemsize,
    load,
    load_f32,
    load_part,
    load_part_f32,
    primitive,
    splat,
    store_f32,
    store_part_f32,
    void,
)


@primitive(int64, int64, emit=lambda b, address: ll.load(b, address, ll.I64, 8))
def get_i64(address: int) -> int:
    """Read one int64 at an address."""
    return ctypes.c_int64.from_address(address).value


@kernel
def index_at(indices: int, i: int, wide: int) -> int:
    """Return indices[i]; int64 (n,) if wide, else int32 (n,)."""
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


@kernel_per_dtype
def gather_rows(out: int, table: int, indices: int, first: int, last: int, dim: int, wide: int) -> None:
    """Read rows of a table as float32.

    out[i] = table[indices[i]],  first <= i < last

    Shapes: out float32 (n, dim); table (rows, dim) of the kernel's type; indices (n,), int64 if wide, else int32.
    """
    for i in range(first, last):
        widen_row(out + 4 * i * dim, table + itemsize * index_at(indices, i, wide) * dim, dim)


@parallel_kernel_per_dtype
def gather(out: int, table: int, indices: int, n: int, dim: int, wide: int, parts: int) -> None:
    """Read rows of a table as float32, split over threads; arguments as ``gather_rows``."""
    for part in prange(parts):
        gather_rows(out, table, indices, part * n // parts, (part + 1) * n // parts, dim, wide)
