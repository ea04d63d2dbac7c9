"""Embeddings of places in a grid: a learned square table, read between its rows and columns."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    fma,
    itemsize,
    load,
    load_f32,
    load_part,
    load_part_f32,
    splat,
    store_f32,
    store_part_f32,
)


@kernel
def place_along(i: int, n: int, side: int) -> float:
    """Return where place i of n lies among ``side`` rows whose first and last are those of the n (aligned corners).

    Shapes: none.
    """
    return i * (side - 1) / (n - 1) if n > 1 else 0.0


@kernel_per_dtype
def add_four_rows(
    out: int, table: int, above: int, below: int, left: int, right: int, down: float, along: float, dim: int
) -> None:
    """Add the blend of four rows of a table.

    out += (1 - down) * ((1 - along) * table[above + left] + along * table[above + right])
         + down * ((1 - along) * table[below + left] + along * table[below + right])

    Shapes: out float32 (dim,); table (rows, dim) of the kernel's type. Sums in float32.
    """
    a, b = splat((1.0 - down) * (1.0 - along)), splat((1.0 - down) * along)
    c, d = splat(down * (1.0 - along)), splat(down * along)
    at_a, at_b = table + itemsize * (above + left) * dim, table + itemsize * (above + right) * dim
    at_c, at_d = table + itemsize * (below + left) * dim, table + itemsize * (below + right) * dim
    whole = dim // LANES * LANES
    for i in range(0, whole, LANES):
        at = itemsize * i
        total = fma(load(at_d + at), d, fma(load(at_c + at), c, fma(load(at_b + at), b, load(at_a + at) * a)))
        store_f32(out + 4 * i, load_f32(out + 4 * i) + total)
    if dim > whole:
        at, n = itemsize * whole, dim - whole
        total = load_part(at_a + at, n) * a
        total = fma(load_part(at_b + at, n), b, total)
        total = fma(load_part(at_d + at, n), d, fma(load_part(at_c + at, n), c, total))
        store_part_f32(out + 4 * whole, load_part_f32(out + 4 * whole, n) + total, n)


@parallel_kernel_per_dtype
def add_grid_embedding(
    out: int, table: int, first: int, n: int, dim: int, side: int, height: int, width: int, merge: int, part: int,
    parts: int,
) -> None:  # fmt: skip
    """Add to each row the embedding of its place in a grid of another size than the table's, rows split over threads.

    out[i] += bilinear(table, y * (side - 1) / (height - 1), x * (side - 1) / (width - 1)), (y, x) = place of first + i

    Shapes: out float32 (n, dim); table (side * side, dim) of the kernel's type. Places come block by block of merge x
    merge, the blocks row by row, and again from the start behind the last.
    """
    block, across = merge * merge, width // merge
    for i in range(part * n // parts, (part + 1) * n // parts):
        at = (first + i) % (height * width)
        y = at // block // across * merge + at % block // merge
        x = at // block % across * merge + at % merge
        down, along = place_along(y, height, side), place_along(x, width, side)
        above, left = math.floor(down), math.floor(along)
        below, right = min(above + 1, side - 1), min(left + 1, side - 1)
        down, along = down - above, along - left
        add_four_rows(out + 4 * i * dim, table, above * side, below * side, left, right, down, along, dim)
