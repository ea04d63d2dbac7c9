"""Matrix products of row-major matrices."""

from __future__ import annotations

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    fma,
    get_f32,
    itemsize,
    load_part,
    put_f32,
    splat,
    store_part_f32,
)
from pio.kernels.sizes import MATMUL_PANEL as PANEL
from pio.kernels.sizes import MATMUL_ROWS as ROWS
from pio.kernels.sizes import MATMUL_VECTORS as VECTORS
from pio.kernels.tiles import outer_tile

DEPTH = 256  # rows of a panel that stay in the second-level cache meanwhile

tile_block = outer_tile(ROWS, VECTORS)
tile_row = outer_tile(1, VECTORS)
tile_edge = outer_tile(ROWS, 1)
tile_one = outer_tile(1, 1)


@kernel
def clear(c: int, rows: int, n: int, ldc: int) -> None:
    """Set a matrix to zero.

    Shapes: c float32 (rows, n), row stride ldc.
    """
    for r in range(rows):
        for j in range(n):
            put_f32(c + 4 * (r * ldc + j), 0.0)


@kernel_per_dtype
def matmul_panel(c: int, a: int, b: int, rows: int, wide: int, k: int, n: int) -> None:
    """Compute PANEL columns of a product, or LANES columns if not wide.

    c[r, j] = sum_i a[r, i] * b[i, j]

    Shapes: a float32 (rows, k); b (k, n) of the kernel's type, c float32 (rows, n): their first columns are computed,
    n is the row stride. Sums in float32 in the order of i. c must not overlap a or b.
    """
    clear(c, rows, PANEL if wide else LANES, n)
    whole = rows // ROWS * ROWS
    for i in range(0, k, DEPTH):
        depth = min(DEPTH, k - i)
        panel = b + itemsize * i * n
        for r in range(0, whole, ROWS):
            if wide:
                tile_block(c + 4 * r * n, a + 4 * (r * k + i), panel, depth, n, k, n)
            else:
                tile_edge(c + 4 * r * n, a + 4 * (r * k + i), panel, depth, n, k, n)
        for r in range(whole, rows):
            if wide:
                tile_row(c + 4 * r * n, a + 4 * (r * k + i), panel, depth, n, k, n)
            else:
                tile_one(c + 4 * r * n, a + 4 * (r * k + i), panel, depth, n, k, n)


@kernel_per_dtype
def matmul_narrow(c: int, a: int, b: int, rows: int, k: int, n: int) -> None:
    """Compute a product of fewer than LANES columns.

    Shapes: as ``matmul_panel``.
    """
    for r in range(rows):
        acc = splat(0.0)
        for i in range(k):
            acc = fma(splat(get_f32(a + 4 * (r * k + i))), load_part(b + itemsize * i * n, n), acc)
        store_part_f32(c + 4 * r * n, acc, n)


@kernel_per_dtype
def matmul_block(c: int, a: int, b: int, rows: int, first: int, last: int, k: int, n: int) -> None:
    """Compute the columns first <= j < last of a product.

    c[r, j] = sum_i a[r, i] * b[i, j]

    Shapes: a float32 (rows, k); b (k, n) of the kernel's type; c float32 (rows, n); last - first is n or at least
    LANES. Sums in float32 in the order of i. c must not overlap a or b.
    """
    if n < LANES:
        matmul_narrow(c, a, b, rows, k, n)
        return
    j = first
    while j < last:
        wide = 1 if last - j >= PANEL else 0
        # the last columns are computed together with some that are already done, which get the same bits again
        start = j if last - j >= LANES else last - LANES
        matmul_panel(c + 4 * start, a, b + itemsize * start, rows, wide, k, n)
        j = start + (PANEL if wide else LANES)


@kernel_per_dtype
def matmul_batch(c: int, a: int, b: int, batch: int, rows: int, k: int, n: int) -> None:
    """Compute a batch of products.

    c[z, r, j] = sum_i a[z, r, i] * b[z, i, j]

    Shapes: a float32 (batch, rows, k); b (batch, k, n) of the kernel's type; c float32 (batch, rows, n).
    Sums in float32 in the order of i. c must not overlap a or b.
    """
    for z in range(batch):
        matmul_block(c + 4 * z * rows * n, a + 4 * z * rows * k, b + itemsize * z * k * n, rows, 0, n, k, n)


@parallel_kernel_per_dtype
def matmul(c: int, a: int, b: int, batch: int, rows: int, k: int, n: int, part: int, parts: int) -> None:
    """Compute a batch of products, split over threads by matrix, else by rows, else by columns.

    Shapes: as ``matmul_batch``; parts <= max(batch, rows // ROWS, n // PANEL). No bit depends on the split.
    """
    next_part = part + 1
    if batch >= parts:
        z, end = part * batch // parts, next_part * batch // parts
        at_c, at_a, at_b = c + 4 * z * rows * n, a + 4 * z * rows * k, b + itemsize * z * k * n
        matmul_batch(at_c, at_a, at_b, end - z, rows, k, n)
        return
    for z in range(batch):
        at_c, at_a, at_b = c + 4 * z * rows * n, a + 4 * z * rows * k, b + itemsize * z * k * n
        if rows >= parts * ROWS:
            r, last = part * rows // parts, next_part * rows // parts
            matmul_block(at_c + 4 * r * n, at_a + 4 * r * k, at_b, last - r, 0, n, k, n)
        else:
            panels = n // PANEL
            j, last = part * panels // parts * PANEL, next_part * panels // parts * PANEL
            matmul_block(at_c, at_a, at_b, rows, j, n if next_part == parts else last, k, n)
