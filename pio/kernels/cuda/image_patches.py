"""Patches of a picture or a video as rows of numbers, as ``pio.kernels.image_patches``."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    get_f64,
    get_i64,
    get_u8,
    grid_size,
    put_f32,
    quotient,
    single,
    thread_index,
)

VALUES = 256  # numbers that a byte can be


@cuda_kernel
def image_patches(out: int, frames: int, table: int, shape: int, first: int, rows: int) -> None:
    """Write patches first <= p < first + rows in the order of a tower that merges squares of them.

    p counts time steps, in each the rows of squares, in each the squares, in each the rows of patches, in each those.
    out[p, c, k, i, j] = table[c, frames[min(step * temporal + k, count - 1), row + i, column + j, c]]

    Shapes: out float32 (rows, 3, temporal, patch, patch); frames uint8 (count, height, width, 3); table float64 (3,
    256), a number for each byte of each channel; shape the record of count, height, width, patch, temporal, merge.
    """
    count, height, width = get_i64(shape), get_i64(shape + 8), get_i64(shape + 16)
    patch, temporal, merge = get_i64(shape + 24), get_i64(shape + 32), get_i64(shape + 40)
    squares, across = quotient(height, patch * merge), quotient(width, patch * merge)
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < rows * 3 * temporal * patch * patch:
        line = quotient(item, patch)
        plane = quotient(line, patch)
        channel = quotient(plane, temporal)
        r = quotient(channel, 3)
        c, k, i, j = channel - 3 * r, plane - channel * temporal, line - plane * patch, item - line * patch
        square = quotient(first + r, merge * merge)
        inside = first + r - square * merge * merge
        strip, down = quotient(square, across), quotient(inside, merge)
        time = quotient(strip, squares)
        row = ((strip - time * squares) * merge + down) * patch + i
        column = ((square - strip * across) * merge + inside - down * merge) * patch + j
        frame = min(time * temporal + k, count - 1)
        value = get_u8(frames + 3 * ((frame * height + row) * width + column) + c)
        put_f32(out + 4 * item, single(get_f64(table + 8 * (VALUES * c + value))))
        item += step
