"""Matrix products of row-major matrices, as ``pio.kernels.matmul``, to the bit: a block takes a tile of 64 by 64."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function_per_dtype
from pio.kernels.cuda._sums import OUTER_DEPTH as DEPTH
from pio.kernels.cuda._sums import OUTER_LINE as LINE
from pio.kernels.cuda._sums import add_outer, put_sums
from pio.kernels.cuda._sums import zeros as no_sums
from pio.kernels.cuda.ptx import (
    block_index,
    get_f32,
    get_shared_f32,
    grid_size,
    itemsize,
    load,
    put_f32,
    put_shared_f32,
    shared_memory,
    single,
    syncthreads,
    thread_index,
)

TILE = 64  # rows and columns of a block
BLOCK = 256  # threads, of four by four sums each
PANEL = 4 * DEPTH * LINE  # bytes of a factor's part in shared memory

zeros = no_sums["16"]
put_tile = put_sums(16, [r * LINE + c for r in range(4) for c in range(4)])


@device_function_per_dtype
def fill(a: int, b: int, r0: int, j0: int, i0: int, rows: int, k: int, n: int) -> None:
    """Bring DEPTH columns of a and rows of b to shared memory, zeros for what is not there.

    Shapes: a float32 (rows, k), from row r0 on; b (k, n) of the kernel's type, from column j0 on.
    """
    place, t = shared_memory(), thread_index()
    while t < TILE * DEPTH:
        r, i = t // DEPTH, t % DEPTH
        value = single(0.0)
        if r0 + r < rows and i0 + i < k:
            value = get_f32(a + 4 * ((r0 + r) * k + i0 + i))
        put_shared_f32(place + 4 * (i * LINE + r), value)
        i, j = t // TILE, t % TILE
        value = single(0.0)
        if i0 + i < k and j0 + j < n:
            value = load(b + itemsize * ((i0 + i) * n + j0 + j))
        put_shared_f32(place + PANEL + 4 * (i * LINE + j), value)
        t += BLOCK


@device_function_per_dtype
def product_tile(c: int, a: int, b: int, r0: int, j0: int, rows: int, k: int, n: int) -> None:
    """Compute a tile of a product.

    Shapes: as ``matmul``, of one matrix.
    """
    x, y, place = thread_index() % 16, thread_index() // 16, shared_memory()
    sums, i = zeros(), 0
    while i < k:
        fill(a, b, r0, j0, i, rows, k, n)
        syncthreads()
        sums = add_outer(sums, place + 16 * y, place + PANEL + 16 * x, min(DEPTH, k - i))
        syncthreads()
        i += DEPTH
    put_tile(place + 4 * (4 * y * LINE + 4 * x), sums)
    syncthreads()
    t = thread_index()
    while t < TILE * TILE:
        r, j = t // TILE, t % TILE
        if r0 + r < rows and j0 + j < n:
            put_f32(c + 4 * ((r0 + r) * n + j0 + j), get_shared_f32(place + 4 * (r * LINE + j)))
        t += BLOCK
    syncthreads()


@cuda_kernel_per_dtype(block=BLOCK, blocks=2, shared=4 * TILE * LINE)
def matmul(c: int, a: int, b: int, batch: int, rows: int, k: int, n: int) -> None:
    """Compute a batch of products.

    c[z, r, j] = sum_i a[z, r, i] * b[z, i, j]

    Shapes: a float32 (batch, rows, k); b (batch, k, n) of the kernel's type; c float32 (batch, rows, n). Sums in
    float32 in the order of i. c must not overlap a or b.
    """
    down, across = (rows + TILE - 1) // TILE, (n + TILE - 1) // TILE
    unit = block_index()
    while unit < batch * down * across:
        z = unit // (down * across)
        own = unit - z * down * across
        r = own // across
        at_c, at_a, at_b = c + 4 * z * rows * n, a + 4 * z * rows * k, b + itemsize * z * k * n
        product_tile(at_c, at_a, at_b, TILE * r, TILE * (own - r * across), rows, k, n)
        unit += grid_size()
