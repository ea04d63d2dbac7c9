"""Rotary position embedding, as ``pio.kernels.rope``: a thread takes a pair."""

from __future__ import annotations

import math

from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    get_f32,
    get_i32,
    grid_size,
    put_f32,
    single,
    thread_index,
)


@cuda_kernel
def rope_table(
    cos: int, sin: int, positions: int, inv_freq: int, axes: int, stride: int, rows: int, half: int, scale: float
) -> None:
    """Compute the rotations of positions.

    cos[t, i] = cos(angle) * scale, sin[t, i] = sin(angle) * scale, angle = float32(positions[axes[i], t]) * inv_freq[i]

    Shapes: cos, sin float32 (T, half); positions int32 (axes, T), row stride in elements; inv_freq float32 (half,);
    axes int32 (half,), or 0 where there is one axis. The angle is a float32, as it was when the models were trained;
    cosine and sine are taken in float64.
    """
    n = block_index() * block_size() + thread_index()
    while n < rows * half:
        t, i = n // half, n % half
        at = positions + 4 * t
        if axes != 0:
            at += 4 * get_i32(axes + 4 * i) * stride
        angle = float(single(get_i32(at)) * get_f32(inv_freq + 4 * i))
        put_f32(cos + 4 * n, single(math.cos(angle) * scale))
        put_f32(sin + 4 * n, single(math.sin(angle) * scale))
        n += grid_size() * block_size()


@cuda_kernel
def rope(x: int, cos: int, sin: int, rows: int, heads: int, head_x: int, half: int, ldx: int, interleaved: int) -> None:
    """Rotate the first 2 * half elements of every head by the angles of its token.

    x[i], x[i'] = x[i] * cos[i] - x[i'] * sin[i], x[i'] * cos[i] + x[i] * sin[i], of the pairs (i, i + half), or where
    interleaved (2 i, 2 i + 1)

    Shapes: x float32 (T, heads, 2 * half or more), token stride ldx, head stride head_x, in place; cos, sin float32
    (T, half). Of two products in one sum the second is rounded alone.
    """
    n = block_index() * block_size() + thread_index()
    while n < rows * heads * half:
        i, head, t = n % half, n // half % heads, n // half // heads
        low = x + 4 * (t * ldx + head * head_x + (2 * i if interleaved != 0 else i))
        high = low + (4 if interleaved != 0 else 4 * half)
        a, b = get_f32(low), get_f32(high)
        c, s = get_f32(cos + 4 * (t * half + i)), get_f32(sin + 4 * (t * half + i))
        put_f32(low, fma(a, c, b * -s))
        put_f32(high, fma(b, c, a * s))
        n += grid_size() * block_size()
