"""Rotary position embedding: the table of rotations, and the rotation of heads, which may be normalised before it."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
from __future__ import annotations

import math

from numba import types

from pio.kernels import _llvm as ll
from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.norm import scale_row, sum_squares
from pio.kernels.parallel import parallel_kernel, parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    VEC,
    Vec,
    fma,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    load_f32,
    load_part_f32,
    primitive,
    put_f32,
    splat,
    store_f32,
    store_part_f32,
)

# The record of the heads that turn, int64 but the last, a float64: heads of queries and of keys, their width, and how
# many pairs of each turn; how far tokens and heads lie apart in out, q and k; whether pairs are side by side; what is
# added to weights, and to the mean square.
HEADS, KV_HEADS, DIM, HALF, TOKEN_OUT, HEAD_OUT = (8 * i for i in range(6))
TOKEN_Q, HEAD_Q, TOKEN_K, HEAD_K, INTERLEAVED, OFFSET, EPS = (8 * i for i in range(6, 13))


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


@kernel_per_dtype
def turn_head(out: int, x: int, weight: int, cos: int, sin: int, shape: int) -> None:
    """Normalise a head where it has a weight, and rotate its first 2 * half elements.

    out[i] = x[i] / sqrt(mean(x ** 2) + eps) * (offset + weight[i]), or x[i] where weight is 0; then pairs are rotated

    Shapes: x, out float32 (dim,); weight (dim,) of the kernel's type; cos, sin float32 (half,); shape the record above.
    Sums in float32. out may be x.
    """
    dim, half = get_i64(shape + DIM), get_i64(shape + HALF)
    if weight != 0:
        scale = 1.0 / math.sqrt(sum_squares(x, dim) / dim + get_f64(shape + EPS))
        scale_row(out, x, weight, dim, scale, get_i64(shape + OFFSET))
    elif out != x:
        for i in range(dim):
            put_f32(out + 4 * i, get_f32(x + 4 * i))
    if get_i64(shape + INTERLEAVED) != 0:
        rotate_pairs(out, cos, sin, half)
    else:
        rotate_halves(out, cos, sin, half)


@parallel_kernel_per_dtype
def qk_norm_rope(
    out: int, q: int, k: int, q_weight: int, k_weight: int, cos: int, sin: int, tokens: int, shape: int, part: int,
    parts: int,
) -> None:  # fmt: skip
    """Normalise heads of queries and keys where they have weights, and rotate them; heads split over threads.

    out[t, h] = rotated(q[t, h] / rms(q[t, h]) * (offset + q_weight), t), and so k in place; only rotated where the
    weight is 0

    Shapes: out, q float32 (T, heads, dim), k float32 (T, kv_heads, dim), with gaps as shape says, the record above;
    weights (dim,) of the kernel's type, or 0; cos, sin float32 (T, half). Sums in float32. out may be q.
    """
    heads, half = get_i64(shape + HEADS), get_i64(shape + HALF)
    each = heads + get_i64(shape + KV_HEADS)
    first, last = part * tokens * each // parts, (part + 1) * tokens * each // parts
    t, h = first // each, first % each
    for _ in range(first, last):
        at_cos, at_sin = cos + 4 * t * half, sin + 4 * t * half
        if h < heads:
            row = q + 4 * (t * get_i64(shape + TOKEN_Q) + h * get_i64(shape + HEAD_Q))
            to = out + 4 * (t * get_i64(shape + TOKEN_OUT) + h * get_i64(shape + HEAD_OUT))
            turn_head(to, row, q_weight, at_cos, at_sin, shape)
        else:
            row = k + 4 * (t * get_i64(shape + TOKEN_K) + (h - heads) * get_i64(shape + HEAD_K))
            turn_head(row, row, k_weight, at_cos, at_sin, shape)
        h += 1
        if h == each:
            t, h = t + 1, 0
