"""Linear layers of many experts: each multiplies its own rows, and its weights are read once for all of them."""

from __future__ import annotations

from pio.kernels._formats import BLOCK, FORMATS
from pio.kernels._jit import PerDtype, kernel
from pio.kernels._linears import multiply
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels.copy import copy_line
from pio.kernels.parallel import FINE, parallel_kernel, parallel_kernel_per_dtype
from pio.kernels.quantized_linear import FEW
from pio.kernels.simd import (
    LANES,
    fma,
    get_f32,
    get_i32,
    get_i64,
    splat,
)
from pio.kernels.sizes import EXPERT_COLUMNS as WIDTH

CHUNK = 4 * LANES  # columns of a row that are summed up at once

copy_words = copy_line["int32_to_int32"]  # through float32 some bit patterns would change


@parallel_kernel
def gather_choices(out: int, x: int, order: int, n: int, k: int, nbytes: int, part: int, parts: int) -> None:
    """Copy the rows of tokens into the order of experts, split by rows.

    out[j] = x[order[j] // k]

    Shapes: x (tokens, nbytes) and out (n, nbytes) bytes, a multiple of 4; k choices for each token; order int32 (n,).
    """
    for j in range(part * n // parts, (part + 1) * n // parts):
        copy_words(out + j * nbytes, x + get_i32(order + 4 * j) // k * nbytes, nbytes // 4, 1, 1)


@kernel
def total_cost(starts: int, experts: int, blocks: int) -> int:
    """Return what all experts cost together: for each block of weights, its rows and what reading it is worth.

    Shapes: starts int32 (experts + 1,).
    """
    total = 0
    for e in range(experts):
        rows = get_i32(starts + 4 * e + 4) - get_i32(starts + 4 * e)
        if rows > 0:
            total += blocks * (rows + FEW)
    return total


@kernel
def blocks_before(cost: int, unit: int, blocks: int) -> int:
    """Return how many of an expert's blocks begin before a cost, counted from where the expert begins.

    Shapes: none; unit is what a block costs.
    """
    return min(max((cost + unit - 1) // unit, 0), blocks)


block_rows = PerDtype(lambda kind: BLOCK if kind in FORMATS else WIDTH)  # outputs that are dealt to parts together


@parallel_kernel_per_dtype(parts_per_thread=FINE)
def experts_linear(
    x: int,
    starts: int,
    y0: int,
    w0: int,
    y1: int,
    w1: int,
    experts: int,
    n: int,
    k: int,
    line: int,
    part: int,
    parts: int,
) -> None:
    """Multiply each expert's rows by its one or two matrices, split over threads by cost.

    yi[r, c] = sum_k x[r, k] * wi[e, c, k],  starts[e] <= r < starts[e + 1]

    Shapes: x (rows, line) bytes, sorted by expert: float32, quantized or rounded, as the kernel's kind of matrix meets
    it; starts int32 (experts + 1,); wi int64 (experts,), addresses of matrices (n, k) of the kernel's kind, w1 0 for
    none; yi float32 (rows, n). Sums as in the
    dense layer of that kind: a row's bits depend on nothing but the row. No y may overlap x.
    """
    step = int(block_rows)
    blocks = (n + step - 1) // step
    both = 2 * blocks if w1 != 0 else blocks
    total = total_cost(starts, experts, both)
    low, high = part * total // parts, (part + 1) * total // parts
    for e in range(experts):
        row = get_i32(starts + 4 * e)
        rows = get_i32(starts + 4 * e + 4) - row
        if rows == 0:
            continue
        unit = rows + FEW
        first, last = blocks_before(low, unit, both), blocks_before(high, unit, both)
        low, high = low - both * unit, high - both * unit
        at_x, at_y = x + row * line, 4 * row * n
        if first < min(last, blocks):
            end = min(step * min(last, blocks), n)
            multiply(y0 + at_y, at_x, get_i64(w0 + 8 * e), 0, step * first, end, rows, n, k, 0)
        first, last = max(first - blocks, 0), last - blocks
        if first < last:
            multiply(y1 + at_y, at_x, get_i64(w1 + 8 * e), 0, step * first, min(step * last, n), rows, n, k, 0)


@parallel_kernel
def add_choices(out: int, y: int, places: int, weights: int, rows: int, k: int, n: int, part: int, parts: int) -> None:
    """Add up what a token's experts say, weighted, and add it to the token's row; split by rows and columns.

    out[r, c] += sum_j weights[r, j] * y[places[r, j], c]

    Shapes: out float32 (rows, n); y float32 (rows * k, n), sorted by expert; places int32 (rows, k); weights float32
    (rows, k). Sums in float32 in the order of j, then out. out must not overlap y.
    """
    chunks = (n + CHUNK - 1) // CHUNK
    for i in range(part * rows * chunks // parts, (part + 1) * rows * chunks // parts):
        r, first = i // chunks, i % chunks * CHUNK
        for c in range(first, min(first + CHUNK, n), LANES):
            total = splat(0.0)
            for j in range(k):
                value = load_up_to(y + 4 * (get_i32(places + 4 * (r * k + j)) * n + c), n - c)
                total = fma(value, splat(get_f32(weights + 4 * (r * k + j))), total)
            place = out + 4 * (r * n + c)
            store_up_to(place, load_up_to(place, n - c) + total, n - c)
