"""Rows that attention begins and ends with: filled, scaled, rounded."""

from __future__ import annotations

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    itemsize,
    load_f32,
    load_part_f32,
    splat,
    store,
    store_f32,
    store_part,
    store_part_f32,
)


@kernel
def fill_f32(address: int, n: int, value: float) -> None:
    """Set n float32, a multiple of 16, to a value.

    x[i] = value

    Shapes: x float32 (n,).
    """
    for i in range(0, n, LANES):
        store_f32(address + 4 * i, splat(value))


@kernel
def scale_row(out: int, x: int, n: int, factor: float) -> None:
    """Multiply a row by a number.

    out[i] = factor * x[i]

    Shapes: x, out float32 (n,). out may be x.
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(out + 4 * i, load_f32(x + 4 * i) * splat(factor))
    if n > whole:
        rest = n - whole
        store_part_f32(out + 4 * whole, load_part_f32(x + 4 * whole, rest) * splat(factor), rest)


@kernel_per_dtype
def round_row(out: int, x: int, n: int) -> None:
    """Convert a float32 row to the kernel's type, to nearest even.

    Shapes: x float32 (n,); out (n,) of the kernel's type.
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store(out + itemsize * i, load_f32(x + 4 * i))
    if n > whole:
        store_part(out + itemsize * whole, load_part_f32(x + 4 * whole, n - whole), n - whole)
