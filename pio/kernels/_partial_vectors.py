"""Whole vectors and what is left at the end of a row, read and written alike."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels.simd import LANES, Vec, load_f32, load_part_f32, store_f32, store_part_f32


@kernel
def load_up_to(address: int, n: int) -> Vec:
    """Read sixteen float32, or as many as there are, zeros behind.

    Shapes: x float32 (n,), n of any sign.
    """
    if n >= LANES:
        return load_f32(address)
    return load_part_f32(address, max(n, 0))


@kernel
def store_up_to(address: int, value: Vec, n: int) -> None:
    """Write sixteen float32, or as many as there is room for.

    Shapes: x float32 (n,), n of any sign.
    """
    if n >= LANES:
        store_f32(address, value)
    else:
        store_part_f32(address, value, max(n, 0))
