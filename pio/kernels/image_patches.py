"""Patches of a picture or a video, as rows of numbers that a vision tower multiplies by its first matrix."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import get_f64, get_i64, get_u8, put_f32

VALUES = 256  # numbers that a byte can be


@kernel
def fill_patch(out: int, frames: int, table: int, step: int, row: int, column: int, shape: int) -> None:
    """Write one patch: its channels, in each the frames of a time step, in each the rows of the patch.

    out[c, k, i, j] = table[c, frames[min(step * temporal + k, count - 1), row + i, column + j, c]]

    Shapes: as ``image_patches``, of one patch that begins at (row, column).
    """
    count, height, width = get_i64(shape), get_i64(shape + 8), get_i64(shape + 16)
    patch, temporal = get_i64(shape + 24), get_i64(shape + 32)
    for c in range(3):
        own = table + 8 * VALUES * c
        for k in range(temporal):
            frame = frames + 3 * height * width * min(step * temporal + k, count - 1) + c
            for i in range(patch):
                at = frame + 3 * ((row + i) * width + column)
                for j in range(patch):
                    put_f32(out + 4 * j, get_f64(own + 8 * get_u8(at + 3 * j)))
                out += 4 * patch


@parallel_kernel
def image_patches(out: int, frames: int, table: int, shape: int, first: int, rows: int, part: int, parts: int) -> None:
    """Write patches first <= p < first + rows in the order of a tower that merges squares of them.

    p counts time steps, in each the rows of squares, in each the squares, in each the rows of patches, in each those.

    Shapes: out float32 (rows, 3, temporal, patch, patch); frames uint8 (count, height, width, 3); table float64 (3,
    256), a number for each byte of each channel; shape the record of count, height, width, patch, temporal, merge.
    """
    patch, temporal, merge = get_i64(shape + 24), get_i64(shape + 32), get_i64(shape + 40)
    squares, across = get_i64(shape + 8) // (patch * merge), get_i64(shape + 16) // (patch * merge)
    size = 4 * 3 * temporal * patch * patch
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        inside, square = (first + r) % (merge * merge), (first + r) // (merge * merge)
        row = square // across % squares * merge + inside // merge
        column = square % across * merge + inside % merge
        fill_patch(out + size * r, frames, table, square // across // squares, row * patch, column * patch, shape)
