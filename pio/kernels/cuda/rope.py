"""Rotary position embedding, as ``pio.kernels.rope``: a thread takes a number of the table, a warp a head that turns.

A lane has a head by units: four pairs that turn, or eight numbers behind these.
"""

# numba-cuda comes without type stubs, and units are tuples
# pyright: reportOperatorIssue=false
from __future__ import annotations

import math

from pio.kernels.cuda._jit import cuda_kernel, cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda._quads import load_four_of, load_four_weights, store_four_of
from pio.kernels.cuda._reduce import warp_sum
from pio.kernels.cuda.norm import add_squares, inverse_root
from pio.kernels.cuda.ptx import (
    WARP,
    block_index,
    block_size,
    fma,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    grid_size,
    put_f32,
    quotient,
    single,
    single_of,
    thread_index,
)

# The record of the heads that turn, as ``pio.kernels.rope`` has it.
HEADS, KV_HEADS, DIM, HALF, TOKEN_OUT, HEAD_OUT = (8 * i for i in range(6))
TOKEN_Q, HEAD_Q, TOKEN_K, HEAD_K, INTERLEAVED, OFFSET, EPS = (8 * i for i in range(6, 13))


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


@device_function
def unit_of(u: int, half: int, dim: int, interleaved: int) -> tuple[int, int, int]:
    """Return where both fours of a unit begin, and where what the unit is a part of ends."""
    turning = (half + 3) // 4
    if u >= turning:
        first = 2 * half + 8 * (u - turning)
        return first, first + 4, dim
    if interleaved != 0:
        return 8 * u, 8 * u + 4, 2 * half
    return 4 * u, half + 4 * u, 2 * half


@device_function
def end_of(u: int, half: int, end: int, interleaved: int) -> int:
    """Return where the first four of a unit must end: of pairs (i, i + half) the second ones follow."""
    if interleaved == 0 and u < (half + 3) // 4:
        return half
    return end


@device_function
def turned(x: float, y: float, c: float, s: float) -> tuple[float, float]:
    """Rotate a pair; of two products in one sum the second is rounded alone."""
    return fma(x, c, y * -s), fma(y, c, x * s)


@device_function_per_dtype
def turn_unit(
    out: int, x: int, weight: int, cos: int, sin: int, u: int, half: int, dim: int, interleaved: int, scale: float,
    shift: float,
) -> None:  # fmt: skip
    """Scale a unit of a head where there are weights, and rotate it where it turns.

    Shapes: as in ``turn_head``.
    """
    low, high, end = unit_of(u, half, dim, interleaved)
    middle = end_of(u, half, end, interleaved)
    a, b, c, d = load_four_of(x, low, middle, single(0.0))
    e, f, g, h = load_four_of(x, high, end, single(0.0))
    if weight != 0:
        p, q, r, s = load_four_weights(weight, low, middle)
        a, b, c, d = a * scale * (shift + p), b * scale * (shift + q), c * scale * (shift + r), d * scale * (shift + s)
        p, q, r, s = load_four_weights(weight, high, end)
        e, f, g, h = e * scale * (shift + p), f * scale * (shift + q), g * scale * (shift + r), h * scale * (shift + s)
    if u < (half + 3) // 4:
        i, j, k, m = load_four_of(cos, 4 * u, half, single(0.0))
        p, q, r, s = load_four_of(sin, 4 * u, half, single(0.0))
        if interleaved != 0:
            a, b = turned(a, b, i, p)
            c, d = turned(c, d, j, q)
            e, f = turned(e, f, k, r)
            g, h = turned(g, h, m, s)
        else:
            a, e = turned(a, e, i, p)
            b, f = turned(b, f, j, q)
            c, g = turned(c, g, k, r)
            d, h = turned(d, h, m, s)
    store_four_of(out, low, middle, a, b, c, d)
    store_four_of(out, high, end, e, f, g, h)


@device_function_per_dtype
def turn_head(out: int, x: int, weight: int, cos: int, sin: int, shape: int) -> None:
    """Normalise a head where it has a weight, and rotate its first 2 * half elements; a warp does it.

    out[i] = x[i] / sqrt(mean(x ** 2) + eps) * (offset + weight[i]), or x[i] where weight is 0; then pairs are rotated

    Shapes: x, out float32 (dim,); weight (dim,) of the kernel's type; cos, sin float32 (half,); shape the record above.
    Sums in float32: each lane its fours in order, then all lanes. out may be x.
    """
    dim, half, interleaved = get_i64(shape + DIM), get_i64(shape + HALF), get_i64(shape + INTERLEAVED)
    lane, scale, shift = thread_index() % WARP, single(1.0), single(0.0)
    if weight != 0:
        shift = single_of(get_i64(shape + OFFSET))
        total, i = single(0.0), 4 * lane
        while i < dim:
            a, b, c, d = load_four_of(x, i, dim, single(0.0))
            total = add_squares(total, a, b, c, d)
            i += 4 * WARP
        scale = inverse_root(warp_sum(total), dim, get_f64(shape + EPS))
    u, units = lane, (half + 3) // 4 + (dim - 2 * half + 7) // 8
    while u < units:
        turn_unit(out, x, weight, cos, sin, u, half, dim, interleaved, scale, shift)
        u += WARP


@cuda_kernel_per_dtype(block=128, blocks=4)
def qk_norm_rope(
    out: int, q: int, k: int, q_weight: int, k_weight: int, cos: int, sin: int, tokens: int, shape: int
) -> None:
    """Normalise heads of queries and keys where they have weights, and rotate them.

    out[t, h] = rotated(q[t, h] / rms(q[t, h]) * (offset + q_weight), t), and so k in place; only rotated where the
    weight is 0

    Shapes: out, q float32 (T, heads, dim), k float32 (T, kv_heads, dim), with gaps as shape says, the record above;
    weights (dim,) of the kernel's type, or 0; cos, sin float32 (T, half). Sums in float32. out may be q. A warp takes a
    head: all its lanes have read what they need of it when the first one knows the sum.
    """
    heads, half = get_i64(shape + HEADS), get_i64(shape + HALF)
    each, warps = heads + get_i64(shape + KV_HEADS), block_size() // WARP
    r = block_index() * warps + thread_index() // WARP
    while r < tokens * each:
        t = quotient(r, each)
        h = r - t * each
        at_cos, at_sin = cos + 4 * t * half, sin + 4 * t * half
        row = to = k + 4 * (t * get_i64(shape + TOKEN_K) + (h - heads) * get_i64(shape + HEAD_K))
        weight = k_weight
        if h < heads:
            row = q + 4 * (t * get_i64(shape + TOKEN_Q) + h * get_i64(shape + HEAD_Q))
            to = out + 4 * (t * get_i64(shape + TOKEN_OUT) + h * get_i64(shape + HEAD_OUT))
            weight = q_weight
        turn_head(to, row, weight, at_cos, at_sin, shape)
        r += grid_size() * warps
