"""Activation functions, element by element."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels.exponential import exp
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import LANES, Vec, fma, load_f32, load_part_f32, maximum, splat, store_f32, store_part_f32


@kernel
def silu_lanes(v: Vec) -> Vec:
    """Return v / (1 + e^-v).

    Shapes: sixteen lanes.
    """
    return v / (splat(1.0) + exp(splat(0.0) - v))


@kernel
def sigmoid_lanes(v: Vec) -> Vec:
    """Return 1 / (1 + e^-v).

    Shapes: sixteen lanes.
    """
    return splat(1.0) / (splat(1.0) + exp(splat(0.0) - v))


@kernel
def gelu_tanh_lanes(v: Vec) -> Vec:
    """Return v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3))), which is v / (1 + e^-2u) for the tanh of u.

    Shapes: sixteen lanes.
    """
    u = v * fma(v * v, splat(2 * 0.7978845608028654 * 0.044715), splat(2 * 0.7978845608028654))
    return v / (splat(1.0) + exp(splat(0.0) - u))


@kernel
def gelu_lanes(v: Vec) -> Vec:
    """Return v / 2 * (1 + erf(v / sqrt(2))), to 3e-7.

    This is max(v, 0) - |v| q(|v|) with the upper tail of the normal distribution q(a) = t P(t) e^(-a^2 / 2), where
    t = 1 / (1 + 0.4 a / sqrt(2)) and P is a least-maximum fit of degree 8, 6e-8 relative up to a = 14.

    Shapes: sixteen lanes.
    """
    zero = splat(0.0)
    a = maximum(v, zero - v)
    a = zero - maximum(zero - a, splat(-20.0))  # the tail is 0 there, and an infinity times 0 would be NaN
    t = splat(1.0) / fma(splat(0.4 * 0.7071067811865476), a, splat(1.0))
    p = splat(0.0412530248 / 2)
    p = fma(p, t, splat(-0.140319166 / 2))
    p = fma(p, t, splat(0.0839871434 / 2))
    p = fma(p, t, splat(0.0879645022 / 2))
    p = fma(p, t, splat(0.0797563799 / 2))
    p = fma(p, t, splat(0.193393255 / 2))
    p = fma(p, t, splat(0.201887578 / 2))
    p = fma(p, t, splat(0.226443113 / 2))
    p = fma(p, t, splat(0.225634231 / 2))
    return maximum(v, zero) - a * t * p * exp(splat(-0.5) * a * a)


@kernel
def silu_range(out: int, x: int, first: int, last: int) -> None:
    """Sigmoid-weighted linear unit.

    out[i] = x[i] / (1 + e^-x[i]),  first <= i < last

    Shapes: x, out float32 (n,). out may be x.
    """
    whole = last - (last - first) % LANES
    for i in range(4 * first, 4 * whole, 4 * LANES):
        store_f32(out + i, silu_lanes(load_f32(x + i)))
    if last > whole:
        i, n = 4 * whole, last - whole
        store_part_f32(out + i, silu_lanes(load_part_f32(x + i, n)), n)


@parallel_kernel
def silu(out: int, x: int, n: int, part: int, parts: int) -> None:
    """Do as ``silu_range`` does, split over threads.

    Shapes: as ``silu_range``.
    """
    silu_range(out, x, part * n // parts, (part + 1) * n // parts)


@kernel
def gelu_tanh_range(out: int, x: int, first: int, last: int) -> None:
    """Gaussian error linear unit by the usual formula with tanh.

    out[i] = x[i] / 2 * (1 + tanh(sqrt(2 / pi) * (x[i] + 0.044715 x[i]^3))),  first <= i < last

    Shapes: x, out float32 (n,). out may be x.
    """
    whole = last - (last - first) % LANES
    for i in range(4 * first, 4 * whole, 4 * LANES):
        store_f32(out + i, gelu_tanh_lanes(load_f32(x + i)))
    if last > whole:
        i, n = 4 * whole, last - whole
        store_part_f32(out + i, gelu_tanh_lanes(load_part_f32(x + i, n)), n)


@parallel_kernel
def gelu_tanh(out: int, x: int, n: int, part: int, parts: int) -> None:
    """Do as ``gelu_tanh_range`` does, split over threads.

    Shapes: as ``gelu_tanh_range``.
    """
    gelu_tanh_range(out, x, part * n // parts, (part + 1) * n // parts)


@kernel
def gelu_range(out: int, x: int, first: int, last: int) -> None:
    """Gaussian error linear unit.

    out[i] = x[i] / 2 * (1 + erf(x[i] / sqrt(2))),  first <= i < last

    Shapes: x, out float32 (n,). out may be x.
    """
    whole = last - (last - first) % LANES
    for i in range(4 * first, 4 * whole, 4 * LANES):
        store_f32(out + i, gelu_lanes(load_f32(x + i)))
    if last > whole:
        i, n = 4 * whole, last - whole
        store_part_f32(out + i, gelu_lanes(load_part_f32(x + i, n)), n)


@parallel_kernel
def gelu(out: int, x: int, n: int, part: int, parts: int) -> None:
    """Do as ``gelu_range`` does, split over threads.

    Shapes: as ``gelu_range``.
    """
    gelu_range(out, x, part * n // parts, (part + 1) * n // parts)


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
def swiglu(
    out: int, gate: int, up: int, rows: int, n: int, ldo: int, ldg: int, ldu: int, part: int, parts: int
) -> None:
    """Gate rows, split over threads.

    Shapes: as ``swiglu_rows``.
    """
    swiglu_rows(out, gate, up, part * rows // parts, (part + 1) * rows // parts, n, ldo, ldg, ldu)


@kernel
def sigmoid_gate_rows(
    out: int, x: int, gate: int, first: int, last: int, heads: int, n: int, ldo: int, ldx: int, ldg: int, head_g: int
) -> None:
    """Multiply by a gate.

    out[r, c] = x[r, c] / (1 + e^-gate[r, c]),  first <= r < last

    Shapes: row r is head r % heads of token r // heads; out, x, gate float32 (tokens, heads, n), token strides ldo,
    ldx, ldg; heads of gate are head_g apart. out may be x or gate.
    """
    whole = n // LANES * LANES
    rest = n - whole
    for r in range(first, last):
        t, h = r // heads, r % heads
        to, at, g = out + 4 * (t * ldo + h * n), x + 4 * (t * ldx + h * n), gate + 4 * (t * ldg + h * head_g)
        for i in range(0, 4 * whole, 4 * LANES):
            store_f32(to + i, load_f32(at + i) * sigmoid_lanes(load_f32(g + i)))
        if rest > 0:
            i = 4 * whole
            store_part_f32(to + i, load_part_f32(at + i, rest) * sigmoid_lanes(load_part_f32(g + i, rest)), rest)


@parallel_kernel
def sigmoid_gate(
    out: int,
    x: int,
    gate: int,
    rows: int,
    heads: int,
    n: int,
    ldo: int,
    ldx: int,
    ldg: int,
    head_g: int,
    part: int,
    parts: int,
) -> None:
    """Multiply by a gate, rows split over threads.

    Shapes: as ``sigmoid_gate_rows``.
    """
    first, last = part * rows // parts, (part + 1) * rows // parts
    sigmoid_gate_rows(out, x, gate, first, last, heads, n, ldo, ldx, ldg, head_g)
