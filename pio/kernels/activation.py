"""Activation functions, element by element."""

from __future__ import annotations

from numba import prange

from pio.kernels._jit import kernel, parallel_kernel
from pio.kernels.simd import LANES, Vec, exp, load_f32, load_part_f32, splat, store_f32, store_part_f32


@kernel
def silu_lanes(v: Vec) -> Vec:
    """v / (1 + e^-v)."""
    return v / (splat(1.0) + exp(splat(0.0) - v))


@kernel
def swiglu_rows(out: int, gate: int, up: int, first: int, last: int, n: int, ldo: int, ldg: int, ldu: int) -> None:
    """Gate rows.

    out[r, c] = gate[r, c] / (1 + e^-gate[r, c]) * up[r, c],  first <= r < last

    Shapes: out, gate, up float32 (rows, n), row strides ldo, ldg, ldu. out may be gate or up.
    """
    whole = n // LANES * LANES
    rest = n - whole
    for r in range(first, last):
        to, g, u = out + 4 * r * ldo, gate + 4 * r * ldg, up + 4 * r * ldu
        for i in range(0, 4 * whole, 4 * LANES):
            store_f32(to + i, silu_lanes(load_f32(g + i)) * load_f32(u + i))
        if rest > 0:
            i = 4 * whole
            store_part_f32(to + i, silu_lanes(load_part_f32(g + i, rest)) * load_part_f32(u + i, rest), rest)


@parallel_kernel
def swiglu(out: int, gate: int, up: int, rows: int, n: int, ldo: int, ldg: int, ldu: int, parts: int) -> None:
    """Gate rows, split over threads; arguments as ``swiglu_rows``."""
    for part in prange(parts):
        swiglu_rows(out, gate, up, part * rows // parts, (part + 1) * rows // parts, n, ldo, ldg, ldu)
