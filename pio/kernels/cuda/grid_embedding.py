"""Embeddings of places in a grid, as ``pio.kernels.grid_embedding``: the same operations, hence the same bits."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function
from pio.kernels.cuda._quads import load_four_of, load_four_weights, store_four_of
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    grid_size,
    itemsize,
    plus,
    quotient,
    single,
    thread_index,
    times,
    times_f64,
    truncated,
)


@device_function
def place_along(i: int, n: int, side: int) -> float:
    """Return where place i of n lies among ``side`` rows whose first and last are those of the n (aligned corners)."""
    return float(i * (side - 1)) / float(n - 1) if n > 1 else 0.0


@device_function
def blend(p: float, q: float, r: float, s: float, a: float, b: float, c: float, d: float) -> float:
    """Return p * a + q * b + r * c + s * d."""
    return fma(s, d, fma(r, c, fma(q, b, times(p, a))))


@cuda_kernel_per_dtype
def add_grid_embedding(
    out: int, table: int, first: int, n: int, dim: int, side: int, height: int, width: int, merge: int
) -> None:
    """Add to each row the embedding of its place in a grid of another size than the table's.

    out[i] += bilinear(table, y * (side - 1) / (height - 1), x * (side - 1) / (width - 1)), (y, x) = place of first + i

    Shapes: out float32 (n, dim); table (side * side, dim) of the kernel's type. Places come block by block of merge x
    merge, the blocks row by row, and again from the start behind the last. Fours of all rows are dealt to threads.
    """
    block, across, fours, places = merge * merge, quotient(width, merge), (dim + 3) // 4, height * width
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < n * fours:
        i = quotient(item, fours)
        column = 4 * (item - i * fours)
        at = first + i - quotient(first + i, places) * places
        square = quotient(at, block)
        inside, strip = at - square * block, quotient(square, across)
        y = strip * merge + quotient(inside, merge)
        x = (square - strip * across) * merge + inside - quotient(inside, merge) * merge
        down, along = place_along(y, height, side), place_along(x, width, side)
        above, left = truncated(down), truncated(along)
        below, right = min(above + 1, side - 1), min(left + 1, side - 1)
        down, along = down - float(above), along - float(left)
        a, b = single(times_f64(1.0 - down, 1.0 - along)), single(times_f64(1.0 - down, along))
        c, d = single(times_f64(down, 1.0 - along)), single(times_f64(down, along))
        p0, p1, p2, p3 = load_four_weights(table + itemsize * (above * side + left) * dim, column, dim)
        q0, q1, q2, q3 = load_four_weights(table + itemsize * (above * side + right) * dim, column, dim)
        r0, r1, r2, r3 = load_four_weights(table + itemsize * (below * side + left) * dim, column, dim)
        s0, s1, s2, s3 = load_four_weights(table + itemsize * (below * side + right) * dim, column, dim)
        to = out + 4 * i * dim
        v0, v1, v2, v3 = load_four_of(to, column, dim, single(0.0))
        v0, v1 = plus(v0, blend(p0, q0, r0, s0, a, b, c, d)), plus(v1, blend(p1, q1, r1, s1, a, b, c, d))
        v2, v3 = plus(v2, blend(p2, q2, r2, s2, a, b, c, d)), plus(v3, blend(p3, q3, r3, s3, a, b, c, d))
        store_four_of(to, column, dim, v0, v1, v2, v3)
        item += step
