"""Linear layers of many experts, as ``pio.kernels.experts``: the units of all experts with rows in one launch."""

from __future__ import annotations

from typing import Any

from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._jit import (
    by_rows,
    cuda_kernel,
    cuda_kernel_per_dtype,
    device_function,
    device_function_per_dtype,
)
from pio.kernels.cuda._linears import do_unit, halves, units
from pio.kernels.cuda._variants import FEW
from pio.kernels.cuda.linear import BLOCK, BLOCKS, FEW_SHARED, SHARED
from pio.kernels.cuda.ptx import (
    WARP,
    ballot,
    block_index,
    block_size,
    fma,
    get_f32,
    get_i32,
    get_i64,
    grid_size,
    load_words,
    ones,
    put_f32,
    put_i32,
    shuffle_from_i32,
    single,
    store_words,
    thread_index,
)

least: PerDtype[Any] = PerDtype(lambda key: 1 if key.startswith("few/") else FEW + 1)  # rows of experts that count
largest: PerDtype[Any] = PerDtype(lambda key: FEW if key.startswith("few/") else 1 << 31)


@cuda_kernel
def gather_choices(out: int, x: int, order: int, n: int, k: int, nbytes: int) -> None:
    """Copy the rows of tokens into the order of experts.

    out[j] = x[order[j] // k]

    Shapes: x (tokens, nbytes) and out (n, nbytes) bytes, a multiple of 4; k choices for each token; order int32 (n,).
    """
    step = 16 if (out | x | nbytes) & 15 == 0 else 4
    pieces, width = nbytes // step, block_size()
    chunks = (pieces + width - 1) // width
    unit = block_index()
    while unit < n * chunks:
        j = unit // chunks
        i = (unit - j * chunks) * width + thread_index()
        if i < pieces:
            to, source = out + j * nbytes + step * i, x + get_i32(order + 4 * j) // k * nbytes + step * i
            if step == 16:
                a, b, c, d = load_words(source)
                store_words(to, a, b, c, d)
            else:
                put_i32(to, get_i32(source))
        unit += grid_size()


@device_function
def sums_up_to(x: int) -> int:
    """Sum over this lane of a warp and those before it."""
    lane = thread_index() % WARP
    for bit in range(5):
        other = shuffle_from_i32(x, max(lane - (1 << bit), 0))
        if lane >= 1 << bit:
            x = x + other
    return x


@device_function_per_dtype
def multiply_experts(
    x: int, starts: int, y0: int, w0: int, y1: int, w1: int, experts: int, n: int, k: int, line: int
) -> None:
    """Multiply each expert's rows by its one or two matrices, where it has few rows, or where it has many.

    yi[r, c] = sum_k x[r, k] * wi[e, c, k],  starts[e] <= r < starts[e + 1]

    Shapes: as ``few_experts``. Each warp looks at 32 experts at once to find the one whose unit it is.
    """
    lane, matrices = thread_index() % WARP, 2 if w1 != 0 else 1
    unit, first = block_index(), 0
    while first < experts:  # what is known of 32 experts is found anew for each unit: no registers hold it meanwhile
        e = first + lane
        row, rows = 0, 0
        if e < experts:
            row = get_i32(starts + 4 * e)
            rows = get_i32(starts + 4 * e + 4) - row
        own = matrices * units(rows, n) if int(least) <= rows <= int(largest) else 0
        end = sums_up_to(own)
        total = shuffle_from_i32(end, WARP - 1)
        if unit < total:
            at = ones(ballot(1 if end <= unit else 0))  # the lane of the expert whose unit it is
            inside, half = unit - shuffle_from_i32(end - own, at), shuffle_from_i32(own, at) // matrices
            its_row, its_rows = shuffle_from_i32(row, at), shuffle_from_i32(rows, at)
            y, w = y0, w0
            if inside >= half:
                y, w, inside = y1, w1, inside - half
            at_w = get_i64(w + 8 * (first + at))
            do_unit(y + 4 * its_row * n, x + its_row * line, at_w, 0, inside, its_rows, n, k, n, line, 0)
            unit += grid_size()
        else:
            unit -= total
            first += WARP


multiply_few, multiply_many = halves(multiply_experts)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=FEW_SHARED)
def few_experts(
    x: int, starts: int, y0: int, w0: int, y1: int, w1: int, experts: int, n: int, k: int, line: int
) -> None:
    """Multiply the rows of each expert that has up to FEW by its one or two matrices, see ``multiply_experts``.

    Shapes: x (rows, line) bytes, sorted by expert: float32, quantized or rounded, as the kernel's kind of matrix meets
    it; starts int32 (experts + 1,); wi int64 (experts,), addresses of matrices (n, k) of the kernel's kind, w1 0 for
    none; yi float32 (rows, n). Sums as in the dense layer of that kind: a row's
    bits depend on nothing but the row. No y may overlap x.
    """
    multiply_few(x, starts, y0, w0, y1, w1, experts, n, k, line)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=SHARED)
def many_experts(
    x: int, starts: int, y0: int, w0: int, y1: int, w1: int, experts: int, n: int, k: int, line: int
) -> None:
    """Multiply the rows of each expert that has more than FEW, see ``multiply_experts``.

    Shapes: as ``few_experts``.
    """
    multiply_many(x, starts, y0, w0, y1, w1, experts, n, k, line)


experts_linear = by_rows("experts.experts_linear", few_experts, many_experts)


@cuda_kernel
def add_choices(out: int, y: int, places: int, weights: int, rows: int, k: int, n: int) -> None:
    """Add up what a token's experts say, weighted, and add it to the token's row.

    out[r, c] += sum_j weights[r, j] * y[places[r, j], c]

    Shapes: out float32 (rows, n); y float32 (rows * k, n), sorted by expert; places int32 (rows, k); weights float32
    (rows, k). Sums in float32 in the order of j, then out: the bits of the CPU's. out must not overlap y.
    """
    chunks = (n + block_size() - 1) // block_size()
    unit = block_index()
    while unit < rows * chunks:
        r = unit // chunks
        c = (unit - r * chunks) * block_size() + thread_index()
        if c < n:
            total = single(0.0)
            for j in range(k):
                value = get_f32(y + 4 * (get_i32(places + 4 * (r * k + j)) * n + c))
                total = fma(value, get_f32(weights + 4 * (r * k + j)), total)
            place = out + 4 * (r * n + c)
            put_f32(place, get_f32(place) + total)
        unit += grid_size()
