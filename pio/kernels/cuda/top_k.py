"""The k largest elements of rows, as ``pio.kernels.top_k``: a block takes a row."""

from __future__ import annotations

import math

from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda._selection import CHUNK, ELEMENTS, SHARED, TOP, block_maxima, index_of, key_at, largest_keys
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    get_f32,
    grid_size,
    put_f32,
    put_i32,
    single,
    syncthreads,
    thread_index,
)


@cuda_kernel(block=512, blocks=1, shared=SHARED)
def top_k_rows(values: int, ids: int, x: int, maxima: int, rows: int, n: int, k: int) -> None:
    """Find the k largest elements of each row and their indices, best first; among equals the lower index.

    values[r], ids[r] = sorted(zip(x[r], range(n)), key=lambda e: (-e[0], e[1]))[:k]

    Shapes: x float32 (rows, n); maxima float32 (rows, ceil(n / 64)), scratch, of which as many rows are used as the
    grid has blocks; values float32 (rows, k); ids int32 (rows, k); 1 <= k <= n < 2^31. Exact; NaN ranks as -inf. values
    and ids must not overlap x.
    """
    maxima += 4 * block_index() * ((n + ELEMENTS - 1) // ELEMENTS)
    r = block_index()
    while r < rows:
        row = x + 4 * r * n
        block_maxima(maxima, row, n)
        done, high = 0, TOP
        while done < k:
            count = min(largest_keys(row, maxima, n, min(k - done, CHUNK), high), k - done)
            i = thread_index()
            while i < count:
                index = index_of(key_at(i))
                v = get_f32(row + 4 * index)
                put_f32(values + 4 * (r * k + done + i), v if v == v else single(-math.inf))
                put_i32(ids + 4 * (r * k + done + i), index)
                i += block_size()
            done, high = done + count, key_at(count - 1)
            syncthreads()
        r += grid_size()
