"""Rotary position embedding: the table of rotations and the rotation in place."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
from __future__ import annotations

import math

from numba import types

from pio.kernels import _llvm as ll
from pio.kernels._jit import kernel
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import (
    LANES,
    VEC,
    Vec,
    fma,
    get_f32,
    get_i32,
    load_f32,
    load_part_f32,
    primitive,
    put_f32,
    splat,
    store_f32,
    store_part_f32,
)


# Of two products in one sum a compiler may round either alone, and those of two processors choose otherwise.
@primitive(VEC, VEC, VEC, VEC, VEC, emit=lambda b, x, y, z, w: ll.fma(b, x, y, b.fmul(z, w)))
def two_products(x: Vec, y: Vec, z: Vec, w: Vec) -> Vec:
    """Return x * y + z * w, of which the second product is rounded alone."""
    return fma(x, y, z * w)


@primitive(*[types.float32] * 5, emit=lambda b, x, y, z, w: ll.fma_f32(b, x, y, b.fmul(z, w)))
def two_products_f32(x: float, y: float, z: float, w: float) -> float:
    """Return x * y + z * w, of which the second product is rounded alone."""
    return fma(splat(x), splat(y), splat(z) * splat(w))[0]


@primitive(types.float64, types.float64, emit=lambda b, x: b.fpext(b.fptrunc(x, ll.F32), x.type))
def single(x: float) -> float:
    """Round to float32 and keep the result in a float64."""
    return splat(x)[0]


@kernel
def rope_table_rows(
    cos: int, sin: int, positions: int, inv_freq: int, axes: int, stride: int, first: int, last: int, half: int,
    scale: float,
) -> None:  # fmt: skip
    """Compute the rotations of positions.

    cos[t, i] = cos(angle) * scale, sin[t, i] = sin(angle) * scale, angle = float32(positions[axes[i], t]) * inv_freq[i]

    Shapes: cos, sin float32 (T, half), first <= t < last; positions int32 (axes, T), row stride in elements; inv_freq
    float32 (half,); axes int32 (half,), or 0 where there is one axis.
    The angle is a float32, as it was when the models were trained; cosine and sine are taken in float64.
    """
    for t in range(first, last):
        position = single(get_i32(positions + 4 * t))
        for i in range(half):
            if axes != 0:
                position = single(get_i32(positions + 4 * (get_i32(axes + 4 * i) * stride + t)))
            angle = single(position * get_f32(inv_freq + 4 * i))
            put_f32(cos + 4 * (t * half + i), math.cos(angle) * scale)
            put_f32(sin + 4 * (t * half + i), math.sin(angle) * scale)


@parallel_kernel
def rope_table(
    cos: int, sin: int, positions: int, inv_freq: int, axes: int, stride: int, rows: int, half: int, scale: float,
    part: int, parts: int,
) -> None:  # fmt: skip
    """Compute the rotations of positions, split over threads.

    Shapes: as ``rope_table_rows``.
    """
    first, last = part * rows // parts, (part + 1) * rows // parts
    rope_table_rows(cos, sin, positions, inv_freq, axes, stride, first, last, half, scale)


@kernel
def rotate_halves(x: int, cos: int, sin: int, half: int) -> None:
    """Rotate the pairs (i, i + half) of one head.

    x[i], x[i + half] = x[i] * cos[i] - x[i + half] * sin[i], x[i + half] * cos[i] + x[i] * sin[i]

    Shapes: x float32 (2 * half,), in place; cos, sin float32 (half,).
    """
    y = x + 4 * half
    whole = half // LANES * LANES
    for i in range(0, 4 * whole, 4 * LANES):
        a, b, c, s = load_f32(x + i), load_f32(y + i), load_f32(cos + i), load_f32(sin + i)
        store_f32(x + i, two_products(a, c, b, splat(0.0) - s))
        store_f32(y + i, two_products(b, c, a, s))
    if half > whole:
        i, n = 4 * whole, half - whole
        a, b = load_part_f32(x + i, n), load_part_f32(y + i, n)
        c, s = load_part_f32(cos + i, n), load_part_f32(sin + i, n)
        store_part_f32(x + i, two_products(a, c, b, splat(0.0) - s), n)
        store_part_f32(y + i, two_products(b, c, a, s), n)


@kernel
def rotate_pairs(x: int, cos: int, sin: int, half: int) -> None:
    """Rotate the pairs (2 i, 2 i + 1) of one head.

    x[2 i], x[2 i + 1] = x[2 i] * cos[i] - x[2 i + 1] * sin[i], x[2 i + 1] * cos[i] + x[2 i] * sin[i]

    Shapes: x float32 (2 * half,), in place; cos, sin float32 (half,).
    """
    for i in range(half):
        a, b = get_f32(x + 8 * i), get_f32(x + 8 * i + 4)
        c, s = get_f32(cos + 4 * i), get_f32(sin + 4 * i)
        put_f32(x + 8 * i, two_products_f32(a, c, b, -s))
        put_f32(x + 8 * i + 4, two_products_f32(b, c, a, s))


@kernel
def rope_rows(
    x: int, cos: int, sin: int, first: int, last: int, heads: int, head_x: int, half: int, ldx: int, interleaved: int
) -> None:
    """Rotate the first 2 * half elements of every head by the angles of its token.

    Shapes: x float32 (T, heads, 2 * half or more), first <= t < last, token stride ldx, head stride head_x, in place;
    cos, sin float32 (T, half).
    """
    for t in range(first, last):
        for head in range(heads):
            row = x + 4 * (t * ldx + head * head_x)
            if interleaved != 0:
                rotate_pairs(row, cos + 4 * t * half, sin + 4 * t * half, half)
            else:
                rotate_halves(row, cos + 4 * t * half, sin + 4 * t * half, half)


@parallel_kernel
def rope(
    x: int,
    cos: int,
    sin: int,
    rows: int,
    heads: int,
    head_x: int,
    half: int,
    ldx: int,
    interleaved: int,
    part: int,
    parts: int,
) -> None:
    """Rotate every head by the angles of its token, tokens split over threads.

    Shapes: as ``rope_rows``.
    """
    first, last = part * rows // parts, (part + 1) * rows // parts
    rope_rows(x, cos, sin, first, last, heads, head_x, half, ldx, interleaved)
