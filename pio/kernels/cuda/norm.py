"""Normalisation of rows, as ``pio.kernels.norm``: a block takes a row, or a warp a short one."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda._quads import load_four_of, load_four_weights, store_four_of, team_of, team_sum
from pio.kernels.cuda.exponential import silu
from pio.kernels.cuda.ptx import divide, fma, get_f64, get_i64, quotient, reciprocal, single, single_of, square_root

# The record of a gated norm's sizes, as ``pio.kernels.norm`` has it.
HEADS, DIM, TOKEN_OUT, TOKEN_X, TOKEN_GATE, HEAD_GATE, EPS = (8 * i for i in range(7))
BLOCK = 512
SHARED = 4 * 32


@device_function
def add_squares(total: float, a: float, b: float, c: float, d: float) -> float:
    """Add the squares of four numbers to a sum, in order."""
    return fma(d, d, fma(c, c, fma(b, b, fma(a, a, total))))


@device_function
def inverse_root(total: float, n: int, eps: float) -> float:
    """Return ``1 / sqrt(total / n + eps)``."""
    return reciprocal(square_root(divide(total, single_of(n)) + single(eps)))


@device_function
def sum_squares(x: int, n: int, lane: int, team: int) -> float:
    """Sum the squares of a row over the threads of a team.

    sum_i x[i] ** 2

    Shapes: x float32 (n,). Each thread sums its fours in order.
    """
    total, i = single(0.0), 4 * lane
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        total = add_squares(total, a, b, c, d)
        i += 4 * team
    return team_sum(total, team)


@device_function_per_dtype
def scale_row(out: int, x: int, weight: int, n: int, scale: float, shift: float, first: int, step: int) -> None:
    """Multiply what a thread has of a row, from ``first`` on, by a number and by a vector.

    out[i] = x[i] * scale * (shift + weight[i])

    Shapes: x, out float32 (n,); weight (n,) of the kernel's type. out may be x.
    """
    i = first
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        e, f, g, h = load_four_weights(weight, i, n)
        a, b = a * scale * (shift + e), b * scale * (shift + f)
        c, d = c * scale * (shift + g), d * scale * (shift + h)
        store_four_of(out, i, n, a, b, c, d)
        i += step


@cuda_kernel_per_dtype(block=BLOCK, blocks=2, shared=SHARED)
def rms_norm(
    out: int, x: int, weight: int, rows: int, heads: int, dim: int, ldo: int, ldx: int, eps: float, offset: int
) -> None:
    """Divide rows by their root mean square, then scale by a weight.

    out[r, c] = x[r, c] / sqrt(mean(x[r] ** 2) + eps) * (offset + weight[c])

    Shapes: row r is head r % heads of token r // heads; x, out float32 (tokens, heads, dim), token strides ldx, ldo;
    weight (dim,) of the kernel's type. Sums in float32. out may be x. A thread's first four numbers and weights stay in
    registers: of rows of up to 4 * BLOCK everything is read once, before anything is waited for.
    """
    lane, team, r, step = team_of(dim)
    shift, first = single_of(offset), 4 * lane
    e, f, g, h = load_four_weights(weight, first, dim)
    while r < rows:
        token = quotient(r, heads)
        head = (r - token * heads) * dim
        row, to = x + 4 * (token * ldx + head), out + 4 * (token * ldo + head)
        a, b, c, d = load_four_of(row, first, dim, single(0.0))
        total, i = add_squares(single(0.0), a, b, c, d), first + 4 * team
        while i < dim:
            p, q, s, t = load_four_of(row, i, dim, single(0.0))
            total = add_squares(total, p, q, s, t)
            i += 4 * team
        scale = inverse_root(team_sum(total, team), dim, eps)
        a, b = a * scale * (shift + e), b * scale * (shift + f)
        c, d = c * scale * (shift + g), d * scale * (shift + h)
        store_four_of(to, first, dim, a, b, c, d)
        scale_row(to, row, weight, dim, scale, shift, first + 4 * team, 4 * team)
        r += step


@cuda_kernel_per_dtype(block=BLOCK, blocks=2, shared=SHARED)
def fused_add_rms_norm(
    out: int, residual: int, x: int, weight: int, rows: int, dim: int, eps: float, offset: int
) -> None:
    """Add rows to the residual stream and normalise it.

    residual[r] += x[r];  out[r, c] = residual[r, c] / sqrt(mean(residual[r] ** 2) + eps) * (offset + weight[c])

    Shapes: x, residual, out float32 (rows, dim); weight (dim,) of the kernel's type. Sums in float32. out may be x.
    Registers as in ``rms_norm``.
    """
    lane, team, r, step = team_of(dim)
    shift, first = single_of(offset), 4 * lane
    e, f, g, h = load_four_weights(weight, first, dim)
    while r < rows:
        row, at_x = residual + 4 * r * dim, x + 4 * r * dim
        a, b, c, d = add_fours(row, at_x, first, dim)
        total, i = add_squares(single(0.0), a, b, c, d), first + 4 * team
        while i < dim:
            p, q, s, t = add_fours(row, at_x, i, dim)
            total = add_squares(total, p, q, s, t)
            i += 4 * team
        scale = inverse_root(team_sum(total, team), dim, eps)
        a, b = a * scale * (shift + e), b * scale * (shift + f)
        c, d = c * scale * (shift + g), d * scale * (shift + h)
        to = out + 4 * r * dim
        store_four_of(to, first, dim, a, b, c, d)
        scale_row(to, row, weight, dim, scale, shift, first + 4 * team, 4 * team)  # what a thread wrote itself
        r += step


@device_function
def add_fours(y: int, x: int, i: int, n: int) -> tuple[float, float, float, float]:
    """Add four numbers of a row to those of another, from i on; return the sums, 0 behind the end.

    Shapes: x, y float32 (n,).
    """
    a, b, c, d = load_four_of(y, i, n, single(0.0))
    e, f, g, h = load_four_of(x, i, n, single(0.0))
    a, b, c, d = a + e, b + f, c + g, d + h
    store_four_of(y, i, n, a, b, c, d)
    return a, b, c, d


@device_function_per_dtype
def scale_gated_row(out: int, x: int, weight: int, gate: int, n: int, scale: float, lane: int, team: int) -> None:
    """Multiply a row by a number, a vector and a gate.

    out[i] = x[i] * scale * weight[i] * gate[i] / (1 + e^-gate[i])

    Shapes: x, gate, out float32 (n,); weight (n,) of the kernel's type. out may be x or gate.
    """
    i = 4 * lane
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        e, f, g, h = load_four_weights(weight, i, n)
        p, q, r, s = load_four_of(gate, i, n, single(0.0))
        a, b = a * scale * e * silu(p), b * scale * f * silu(q)
        c, d = c * scale * g * silu(r), d * scale * h * silu(s)
        store_four_of(out, i, n, a, b, c, d)
        i += 4 * team


@cuda_kernel_per_dtype(block=BLOCK, blocks=2, shared=SHARED)
def gated_rms_norm(out: int, x: int, gate: int, weight: int, rows: int, shape: int) -> None:
    """Divide rows by their root mean square, then scale by a weight and a gate.

    out[r, c] = x[r, c] / sqrt(mean(x[r] ** 2) + eps) * weight[c] * silu(gate[r, c])

    Shapes: row r is head r % heads of token r // heads; x, gate, out float32 (tokens, heads, dim), with gaps between
    tokens, and in gate between heads, as shape says, int64 (7,), the record above; weight (dim,) of the kernel's type.
    Sums in float32. out may be x or gate.
    """
    heads, dim, eps = get_i64(shape + HEADS), get_i64(shape + DIM), get_f64(shape + EPS)
    lane, team, r, step = team_of(dim)
    while r < rows:
        t = quotient(r, heads)
        h = r - t * heads
        row = x + 4 * (t * get_i64(shape + TOKEN_X) + h * dim)
        scale = inverse_root(sum_squares(row, dim, lane, team), dim, eps)
        at_gate = gate + 4 * (t * get_i64(shape + TOKEN_GATE) + h * get_i64(shape + HEAD_GATE))
        to = out + 4 * (t * get_i64(shape + TOKEN_OUT) + h * dim)
        scale_gated_row(to, row, weight, at_gate, dim, scale, lane, team)
        r += step


@device_function
def mean_row(x: int, n: int, lane: int, team: int) -> float:
    """Average a row over the threads of a team.

    Shapes: x float32 (n,). Sums in float32.
    """
    total, i = single(0.0), 4 * lane
    while i < n:
        a, b, c, d = load_four_of(x, i, n, single(0.0))
        total = total + ((a + b) + (c + d))
        i += 4 * team
    return divide(team_sum(total, team), single_of(n))


@device_function
def sum_squared_distances(x: int, n: int, mean: float, lane: int, team: int) -> float:
    """Sum the squared distances from the mean over the threads of a team.

    Shapes: x float32 (n,). Sums in float32.
    """
    total, i = single(0.0), 4 * lane
    while i < n:
        a, b, c, d = load_four_of(x, i, n, mean)
        total = add_squares(total, a - mean, b - mean, c - mean, d - mean)
        i += 4 * team
    return team_sum(total, team)


@cuda_kernel_per_dtype(block=BLOCK, blocks=2, shared=SHARED)
def layer_norm(out: int, x: int, weight: int, bias: int, rows: int, dim: int, eps: float) -> None:
    """Centre rows, divide them by their standard deviation, scale and shift.

    out[r, c] = (x[r, c] - mean(x[r])) / sqrt(var(x[r]) + eps) * weight[c] (+ bias[c] if bias is not 0)

    Shapes: x, out float32 (rows, dim); weight, bias (dim,) of the kernel's type. Sums in float32, the variance around
    the mean in a second pass. out may be x.
    """
    lane, team, r, step = team_of(dim)
    while r < rows:
        row, to = x + 4 * r * dim, out + 4 * r * dim
        mean = mean_row(row, dim, lane, team)
        scale = inverse_root(sum_squared_distances(row, dim, mean, lane, team), dim, eps)
        i = 4 * lane
        while i < dim:
            a, b, c, d = load_four_of(row, i, dim, mean)
            e, f, g, h = load_four_weights(weight, i, dim)
            a, b = (a - mean) * scale * e, (b - mean) * scale * f
            c, d = (c - mean) * scale * g, (d - mean) * scale * h
            if bias != 0:
                e, f, g, h = load_four_weights(bias, i, dim)
                a, b, c, d = a + e, b + f, c + g, d + h
            store_four_of(to, i, dim, a, b, c, d)
            i += 4 * team
        r += step
