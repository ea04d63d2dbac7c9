"""Activation functions, element by element, as ``pio.kernels.activation``."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel, device_function
from pio.kernels.cuda._quads import load_four_of, store_four_of
from pio.kernels.cuda.exponential import exp, sigmoid
from pio.kernels.cuda.exponential import silu as silu_of
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    divide,
    fma,
    grid_size,
    maximum,
    minimum,
    plus,
    quotient,
    single,
    thread_index,
    times,
)

COLUMNS = 1024  # of a row that a block takes at once: four of each thread


@device_function
def gelu_tanh_of(v: float) -> float:
    """Return v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3))), which is v / (1 + e^-2u) for the tanh of u."""
    cubic, linear = single(2 * 0.7978845608028654 * 0.044715), single(2 * 0.7978845608028654)
    u = times(v, fma(times(v, v), cubic, linear))
    return divide(v, plus(single(1.0), exp(-u)))


@device_function
def gelu_of(v: float) -> float:
    """Return v / 2 * (1 + erf(v / sqrt(2))), to 3e-7, as ``pio.kernels.activation.gelu_lanes`` does."""
    a = abs(v)
    if v == v:
        a = minimum(a, single(20.0))  # the tail is 0 there, and an infinity times 0 would be NaN
    t = divide(single(1.0), fma(single(0.4 * 0.7071067811865476), a, single(1.0)))
    p = single(0.0412530248 / 2)
    p = fma(p, t, single(-0.140319166 / 2))
    p = fma(p, t, single(0.0839871434 / 2))
    p = fma(p, t, single(0.0879645022 / 2))
    p = fma(p, t, single(0.0797563799 / 2))
    p = fma(p, t, single(0.193393255 / 2))
    p = fma(p, t, single(0.201887578 / 2))
    p = fma(p, t, single(0.226443113 / 2))
    p = fma(p, t, single(0.225634231 / 2))
    tail = times(times(times(a, t), p), exp(times(times(single(-0.5), a), a)))
    return maximum(v, single(0.0)) - tail


@cuda_kernel
def silu(out: int, x: int, n: int) -> None:
    """Sigmoid-weighted linear unit.

    out[i] = x[i] / (1 + e^-x[i])

    Shapes: x, out float32 (n,). out may be x.
    """
    i, step = 4 * (block_index() * block_size() + thread_index()), 4 * grid_size() * block_size()
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        store_four_of(out, i, n, silu_of(a), silu_of(b), silu_of(c), silu_of(d))
        i += step


@cuda_kernel
def gelu_tanh(out: int, x: int, n: int) -> None:
    """Gaussian error linear unit by the usual formula with tanh.

    out[i] = x[i] / 2 * (1 + tanh(sqrt(2 / pi) * (x[i] + 0.044715 x[i]^3)))

    Shapes: x, out float32 (n,). out may be x.
    """
    i, step = 4 * (block_index() * block_size() + thread_index()), 4 * grid_size() * block_size()
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        store_four_of(out, i, n, gelu_tanh_of(a), gelu_tanh_of(b), gelu_tanh_of(c), gelu_tanh_of(d))
        i += step


@cuda_kernel
def gelu(out: int, x: int, n: int) -> None:
    """Gaussian error linear unit.

    out[i] = x[i] / 2 * (1 + erf(x[i] / sqrt(2)))

    Shapes: x, out float32 (n,). out may be x.
    """
    i, step = 4 * (block_index() * block_size() + thread_index()), 4 * grid_size() * block_size()
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        store_four_of(out, i, n, gelu_of(a), gelu_of(b), gelu_of(c), gelu_of(d))
        i += step


@cuda_kernel
def swiglu(out: int, gate: int, up: int, rows: int, n: int, ldo: int, ldg: int, ldu: int) -> None:
    """Gate rows.

    out[r, c] = gate[r, c] / (1 + e^-gate[r, c]) * up[r, c]

    Shapes: out, gate, up float32 (rows, n), row strides ldo, ldg, ldu. out may be gate or up. Blocks take stretches of
    COLUMNS of a row, so that one row is work for many.
    """
    stretches = (n + COLUMNS - 1) // COLUMNS
    item = block_index()
    while item < rows * stretches:
        r = quotient(item, stretches)
        i = (item - r * stretches) * COLUMNS + 4 * thread_index()
        if i < n:
            a, b, c, d = load_four_of(gate + 4 * r * ldg, i, n, single(0.0))
            e, f, g, h = load_four_of(up + 4 * r * ldu, i, n, single(0.0))
            a, b, c, d = silu_of(a) * e, silu_of(b) * f, silu_of(c) * g, silu_of(d) * h
            store_four_of(out + 4 * r * ldo, i, n, a, b, c, d)
        item += grid_size()


@cuda_kernel
def sigmoid_gate(
    out: int, x: int, gate: int, rows: int, heads: int, n: int, ldo: int, ldx: int, ldg: int, head_g: int
) -> None:
    """Multiply by a gate.

    out[r, c] = x[r, c] / (1 + e^-gate[r, c])

    Shapes: row r is head r % heads of token r // heads; out, x, gate float32 (tokens, heads, n), token strides ldo,
    ldx, ldg; heads of gate are head_g apart. out may be x or gate. Fours of all rows are dealt to threads.
    """
    fours = (n + 3) // 4
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < rows * fours:
        r = quotient(item, fours)
        i = 4 * (item - r * fours)
        t = quotient(r, heads)
        h = r - t * heads
        a, b, c, d = load_four_of(x + 4 * (t * ldx + h * n), i, n, single(0.0))
        e, f, g, k = load_four_of(gate + 4 * (t * ldg + h * head_g), i, n, single(0.0))
        a, b, c, d = a * sigmoid(e), b * sigmoid(f), c * sigmoid(g), d * sigmoid(k)
        store_four_of(out + 4 * (t * ldo + h * n), i, n, a, b, c, d)
        item += step
