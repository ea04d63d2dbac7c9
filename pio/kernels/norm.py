"""Normalisation of rows: root mean square and layer norm."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.activation import silu_lanes
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    fma,
    get_f64,
    get_i64,
    itemsize,
    keep,
    load,
    load_f32,
    load_part,
    load_part_f32,
    splat,
    store_f32,
    store_part_f32,
    sum_lanes,
)

# The record of a gated norm's sizes, int64 but the last, a float64: heads and their width; how far tokens lie apart in
# out, x and gate; heads of a group in gate, and how far groups and heads lie apart there; what is added to the mean
# square.
HEADS, DIM, TOKEN_OUT, TOKEN_X, TOKEN_GATE, EACH, GROUP_GATE, HEAD_GATE, EPS = (8 * i for i in range(9))


@kernel
def sum_squares(x: int, n: int) -> float:
    """Sum the squares of a vector.

    sum_i x[i] ** 2

    Shapes: x float32 (n,). Sums in float32, four times sixteen lanes.
    """
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)  # one sum would wait for itself at every step
    blocks = n // (4 * LANES) * (4 * LANES)
    whole = n // LANES * LANES
    for i in range(0, blocks, 4 * LANES):
        v0, v1 = load_f32(x + 4 * i), load_f32(x + 4 * (i + LANES))
        v2, v3 = load_f32(x + 4 * (i + 2 * LANES)), load_f32(x + 4 * (i + 3 * LANES))
        a, b, c, d = fma(v0, v0, a), fma(v1, v1, b), fma(v2, v2, c), fma(v3, v3, d)
    for i in range(blocks, whole, LANES):
        v0 = load_f32(x + 4 * i)
        a = fma(v0, v0, a)
    if n > whole:
        v0 = load_part_f32(x + 4 * whole, n - whole)
        b = fma(v0, v0, b)
    return sum_lanes((a + b) + (c + d))


@kernel_per_dtype
def scale_row(out: int, x: int, weight: int, n: int, scale: float, offset: int) -> None:
    """Multiply a row by a number and by a vector.

    out[i] = x[i] * scale * (offset + weight[i])

    Shapes: x, out float32 (n,); weight (n,) of the kernel's type. out may be x.
    """
    factor, shift = splat(scale), splat(offset)
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(out + 4 * i, load_f32(x + 4 * i) * factor * (shift + load(weight + itemsize * i)))
    if n > whole:
        rest = n - whole
        value = load_part_f32(x + 4 * whole, rest) * factor * (shift + load_part(weight + itemsize * whole, rest))
        store_part_f32(out + 4 * whole, value, rest)


@kernel_per_dtype
def rms_norm_rows(
    out: int,
    x: int,
    weight: int,
    first: int,
    last: int,
    heads: int,
    dim: int,
    ldo: int,
    ldx: int,
    eps: float,
    offset: int,
) -> None:
    """Divide rows by their root mean square, then scale by a weight.

    out[r, c] = x[r, c] / sqrt(mean(x[r] ** 2) + eps) * (offset + weight[c]),  first <= r < last

    Shapes: row r is head r % heads of token r // heads; x, out float32 (tokens, heads, dim), token strides ldx, ldo;
    weight (dim,) of the kernel's type. Sums in float32. out may be x.
    """
    for r in range(first, last):
        head = r % heads * dim
        at_x = x + 4 * (r // heads * ldx + head)
        scale = 1.0 / math.sqrt(sum_squares(at_x, dim) / dim + eps)
        scale_row(out + 4 * (r // heads * ldo + head), at_x, weight, dim, scale, offset)


@parallel_kernel_per_dtype
def rms_norm(
    out: int,
    x: int,
    weight: int,
    rows: int,
    heads: int,
    dim: int,
    ldo: int,
    ldx: int,
    eps: float,
    offset: int,
    part: int,
    parts: int,
) -> None:
    """Divide rows by their root mean square, rows split over threads.

    Shapes: as ``rms_norm_rows``.
    """
    first, last = part * rows // parts, (part + 1) * rows // parts
    rms_norm_rows(out, x, weight, first, last, heads, dim, ldo, ldx, eps, offset)


@kernel
def add_row(y: int, x: int, n: int) -> None:
    """Add a vector to another.

    y[i] += x[i]

    Shapes: x, y float32 (n,).
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(y + 4 * i, load_f32(y + 4 * i) + load_f32(x + 4 * i))
    if n > whole:
        rest = n - whole
        store_part_f32(y + 4 * whole, load_part_f32(y + 4 * whole, rest) + load_part_f32(x + 4 * whole, rest), rest)


@kernel_per_dtype
def fused_add_rms_norm_rows(
    out: int, residual: int, x: int, weight: int, first: int, last: int, dim: int, eps: float, offset: int
) -> None:
    """Add rows to the residual stream and normalise it.

    residual[r] += x[r];  out[r, c] = residual[r, c] / sqrt(mean(residual[r] ** 2) + eps) * (offset + weight[c])

    Shapes: x, residual, out float32 (rows, dim), first <= r < last; weight (dim,) of the kernel's type.
    Sums in float32. out may be x.
    """
    for r in range(first, last):
        row = residual + 4 * r * dim
        add_row(row, x + 4 * r * dim, dim)
        scale_row(out + 4 * r * dim, row, weight, dim, 1.0 / math.sqrt(sum_squares(row, dim) / dim + eps), offset)


@parallel_kernel_per_dtype
def fused_add_rms_norm(
    out: int, residual: int, x: int, weight: int, rows: int, dim: int, eps: float, offset: int, part: int, parts: int
) -> None:
    """Add rows to the residual stream and normalise it, rows split over threads.

    Shapes: as ``fused_add_rms_norm_rows``.
    """
    first, last = part * rows // parts, (part + 1) * rows // parts
    fused_add_rms_norm_rows(out, residual, x, weight, first, last, dim, eps, offset)


@kernel_per_dtype
def scale_gated_row(out: int, x: int, weight: int, gate: int, n: int, scale: float) -> None:
    """Multiply a row by a number, a vector and a gate.

    out[i] = x[i] * scale * weight[i] * gate[i] / (1 + e^-gate[i])

    Shapes: x, gate, out float32 (n,); weight (n,) of the kernel's type. out may be x or gate.
    """
    factor = splat(scale)
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        value = load_f32(x + 4 * i) * factor * load(weight + itemsize * i)
        store_f32(out + 4 * i, value * silu_lanes(load_f32(gate + 4 * i)))
    if n > whole:
        i, rest = whole, n - whole
        value = load_part_f32(x + 4 * i, rest) * factor * load_part(weight + itemsize * i, rest)
        store_part_f32(out + 4 * i, value * silu_lanes(load_part_f32(gate + 4 * i, rest)), rest)


@parallel_kernel_per_dtype
def gated_rms_norm(out: int, x: int, gate: int, weight: int, rows: int, shape: int, part: int, parts: int) -> None:
    """Divide rows by their root mean square, then scale by a weight and a gate; rows split over threads.

    out[r, c] = x[r, c] / sqrt(mean(x[r] ** 2) + eps) * weight[c] * silu(gate[r, c])

    Shapes: row r is head r % heads of token r // heads; x, gate, out float32 (tokens, heads, dim), with gaps between
    tokens, and in gate between heads, as shape says, int64 (9,), the record above; weight (dim,) of the kernel's type.
    Sums in float32. out may be x or gate.
    """
    heads, dim, eps = get_i64(shape + HEADS), get_i64(shape + DIM), get_f64(shape + EPS)
    each = get_i64(shape + EACH)
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        t, h = r // heads, r % heads
        row = x + 4 * (t * get_i64(shape + TOKEN_X) + h * dim)
        scale = 1.0 / math.sqrt(sum_squares(row, dim) / dim + eps)
        gate_head = h // each * get_i64(shape + GROUP_GATE) + h % each * get_i64(shape + HEAD_GATE)
        at_gate = gate + 4 * (t * get_i64(shape + TOKEN_GATE) + gate_head)
        scale_gated_row(out + 4 * (t * get_i64(shape + TOKEN_OUT) + h * dim), row, weight, at_gate, dim, scale)


@kernel
def mean_row(x: int, n: int) -> float:
    """Average a vector.

    sum_i x[i] / n

    Shapes: x float32 (n,). Sums in float32, sixteen lanes.
    """
    acc = splat(0.0)
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        acc = acc + load_f32(x + 4 * i)
    if n > whole:
        acc = acc + load_part_f32(x + 4 * whole, n - whole)
    return sum_lanes(acc) / n


@kernel
def variance_row(x: int, n: int, mean: float) -> float:
    """Average the squared distances from the mean.

    sum_i (x[i] - mean) ** 2 / n

    Shapes: x float32 (n,). Sums in float32, sixteen lanes.
    """
    acc, centre = splat(0.0), splat(mean)
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        v = load_f32(x + 4 * i) - centre
        acc = fma(v, v, acc)
    if n > whole:
        v = keep(load_part_f32(x + 4 * whole, n - whole) - centre, 0, n - whole, 0.0)
        acc = fma(v, v, acc)
    return sum_lanes(acc) / n


@kernel_per_dtype
def layer_norm_rows(out: int, x: int, weight: int, bias: int, first: int, last: int, dim: int, eps: float) -> None:
    """Centre rows, divide them by their standard deviation, scale and shift.

    out[r, c] = (x[r, c] - mean(x[r])) / sqrt(var(x[r]) + eps) * weight[c] (+ bias[c] if bias is not 0)

    Shapes: x, out float32 (rows, dim), first <= r < last; weight, bias (dim,) of the kernel's type.
    Sums in float32, the variance around the mean in a second pass. out may be x.
    """
    whole = dim // LANES * LANES
    rest = dim - whole
    for r in range(first, last):
        row, to = x + 4 * r * dim, out + 4 * r * dim
        mean = mean_row(row, dim)
        centre, scale = splat(mean), splat(1.0 / math.sqrt(variance_row(row, dim, mean) + eps))
        for i in range(0, whole, LANES):
            v = (load_f32(row + 4 * i) - centre) * scale * load(weight + itemsize * i)
            if bias != 0:
                v = v + load(bias + itemsize * i)
            store_f32(to + 4 * i, v)
        if rest > 0:
            v = (load_part_f32(row + 4 * whole, rest) - centre) * scale * load_part(weight + itemsize * whole, rest)
            if bias != 0:
                v = v + load_part(bias + itemsize * whole, rest)
            store_part_f32(to + 4 * whole, v, rest)


@parallel_kernel_per_dtype
def layer_norm(
    out: int, x: int, weight: int, bias: int, rows: int, dim: int, eps: float, part: int, parts: int
) -> None:
    """Layer norm, rows split over threads.

    Shapes: as ``layer_norm_rows``.
    """
    layer_norm_rows(out, x, weight, bias, part * rows // parts, (part + 1) * rows // parts, dim, eps)
