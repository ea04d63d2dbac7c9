"""Arithmetic on tensors of the same shape."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import LANES, load_f32, load_part_f32, store_f32, store_part_f32


@kernel
def add_range(out: int, x: int, y: int, first: int, last: int) -> None:
    """Add vectors.

    out[i] = x[i] + y[i],  first <= i < last

    Shapes: x, y, out float32 (n,). out may be x or y.
    """
    whole = last - (last - first) % LANES
    for i in range(4 * first, 4 * whole, 4 * LANES):
        store_f32(out + i, load_f32(x + i) + load_f32(y + i))
    if last > whole:
        i, n = 4 * whole, last - whole
        store_part_f32(out + i, load_part_f32(x + i, n) + load_part_f32(y + i, n), n)


@parallel_kernel
def add(out: int, x: int, y: int, n: int, part: int, parts: int) -> None:
    """Add vectors, split over threads.

    Shapes: as ``add_range``.
    """
    add_range(out, x, y, part * n // parts, (part + 1) * n // parts)


@kernel
def mul_range(out: int, x: int, y: int, first: int, last: int) -> None:
    """Multiply vectors element by element.

    out[i] = x[i] * y[i],  first <= i < last

    Shapes: x, y, out float32 (n,). out may be x or y.
    """
    whole = last - (last - first) % LANES
    for i in range(4 * first, 4 * whole, 4 * LANES):
        store_f32(out + i, load_f32(x + i) * load_f32(y + i))
    if last > whole:
        i, n = 4 * whole, last - whole
        store_part_f32(out + i, load_part_f32(x + i, n) * load_part_f32(y + i, n), n)


@parallel_kernel
def mul(out: int, x: int, y: int, n: int, part: int, parts: int) -> None:
    """Multiply vectors element by element, split over threads.

    Shapes: as ``mul_range``.
    """
    mul_range(out, x, y, part * n // parts, (part + 1) * n // parts)
