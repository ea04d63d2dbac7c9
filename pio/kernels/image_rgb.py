"""Red, green and blue of pixels that have one number, or alpha, or are floats."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import get_f32, get_u8, put_f32, put_u8


@kernel
def byte_at(x: int, i: int, floats: int) -> int:
    """Return number i as a byte: a float times 255, rounded to nearest, cut at both ends; 0 where it is NaN.

    Shapes: x uint8 (n,), or float32 (n,) if floats.
    """
    if floats == 0:
        return get_u8(x + i)
    value = get_f32(x + 4 * i)
    if value > 0.0:
        return int(min(value, 1.0) * 255.0 + 0.5)
    return 0


@kernel
def rgb_row(out: int, x: int, width: int, channels: int, floats: int, under: int) -> None:
    """Make the pixels of one row.

    Shapes: as ``image_rgb``, of one row.
    """
    for i in range(width):
        alpha = byte_at(x, channels * i + 3, floats) if channels == 4 else 255
        for c in range(3):
            value = byte_at(x, channels * i + (c if channels > 1 else 0), floats)
            below = (under >> (8 * c)) & 255
            put_u8(out + 3 * i + c, (alpha * value + (255 - alpha) * below + 127) // 255)


@parallel_kernel
def image_rgb(
    out: int, x: int, found: int, rows: int, width: int, channels: int, floats: int, under: int, part: int, parts: int
) -> None:
    """Make red, green and blue of pixels, on a colour where they have alpha, rows split over threads.

    out[r, i, c] = round((a * v + (255 - a) * under[c]) / 255), v = x[r, i, c] or x[r, i, 0] of one channel,
    a = x[r, i, 3] of four or else 255; floats count as round(255 * x)

    Shapes: out uint8 (rows, width, 3); x uint8, or float32 if floats, (rows, width, channels), 1, 3 or 4 of them;
    under red + 256 * green + 65536 * blue; found float32 (parts, 2): of floats the lowest and the highest in each part,
    NaN where one is. Sums in whole numbers.
    """
    lowest, highest, strange = math.inf, -math.inf, 0
    n = width * channels
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        rgb_row(out + 3 * width * r, x + (4 if floats != 0 else 1) * n * r, width, channels, floats, under)
        if floats != 0:
            for i in range(n * r, n * (r + 1)):
                value = get_f32(x + 4 * i)
                lowest, highest = min(lowest, value), max(highest, value)
                if value != value:
                    strange = 1
    put_f32(found + 8 * part, math.nan if strange != 0 else lowest)
    put_f32(found + 8 * part + 4, math.nan if strange != 0 else highest)
