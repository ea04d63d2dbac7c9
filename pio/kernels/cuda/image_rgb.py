"""Red, green and blue of pixels that have one number, or alpha, or are floats, as ``pio.kernels.image_rgb``."""

from __future__ import annotations

import math

from pio.kernels.cuda._jit import cuda_kernel, device_function
from pio.kernels.cuda._quads import warp_max
from pio.kernels.cuda.ptx import (
    WARP,
    bits_of,
    block_index,
    block_size,
    get_f32,
    get_u8,
    grid_size,
    lower_i32,
    lower_u32,
    maximum,
    plus,
    put_u8,
    quotient,
    raise_i32,
    raise_u32,
    single,
    thread_index,
    truncated,
)

NAN = 0x7FC00000


@device_function
def byte_at(x: int, i: int, floats: int) -> int:
    """Return number i as a byte: a float times 255, rounded to nearest, cut at both ends; 0 where it is NaN.

    Shapes: x uint8 (n,), or float32 (n,) if floats.
    """
    if floats == 0:
        return get_u8(x + i)
    value = float(get_f32(x + 4 * i))
    if value > 0.0:
        return truncated(min(value, 1.0) * 255.0 + 0.5)
    return 0


@device_function
def note(found: int, lowest: float, highest: float, strange: float) -> None:
    """Lower and raise the bounds of all by those of a warp: of floats of one sign the bits are in order as well.

    Shapes: found float32 (2,).
    """
    lowest, highest, strange = -warp_max(-lowest), warp_max(highest), warp_max(strange)
    if thread_index() % WARP == 0 and lowest <= highest:
        zero = single(0.0)
        if lowest >= zero:
            lower_i32(found, bits_of(plus(lowest, zero)))
        else:
            raise_u32(found, bits_of(lowest))
        if highest >= zero:
            raise_i32(found + 4, bits_of(plus(highest, zero)))
        else:
            lower_u32(found + 4, bits_of(highest))
    if thread_index() % WARP == 0 and strange > single(0.0):
        raise_i32(found + 4, NAN)


@cuda_kernel
def image_rgb(out: int, x: int, found: int, rows: int, width: int, channels: int, floats: int, under: int) -> None:
    """Make red, green and blue of pixels, on a colour where they have alpha: a thread makes a pixel.

    out[r, i, c] = round((a * v + (255 - a) * under[c]) / 255), v = x[r, i, c] or x[r, i, 0] of one channel,
    a = x[r, i, 3] of four or else 255; floats count as round(255 * x)

    Shapes: out uint8 (rows, width, 3); x uint8, or float32 if floats, (rows, width, channels), 1, 3 or 4 of them;
    under red + 256 * green + 65536 * blue; found float32 (2,), which holds inf and -inf before: of floats the lowest
    and the highest number, the highest NaN where one is. Sums in whole numbers.
    """
    lowest, highest, strange = single(math.inf), single(-math.inf), single(0.0)
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < rows * width:
        alpha = 255
        if channels == 4:
            alpha = byte_at(x, 4 * item + 3, floats)
        for c in range(3):
            value = byte_at(x, channels * item + (c if channels > 1 else 0), floats)
            below = (under >> (8 * c)) & 255
            put_u8(out + 3 * item + c, quotient(alpha * value + (255 - alpha) * below + 127, 255))
        if floats != 0:
            for c in range(channels):
                number = get_f32(x + 4 * (channels * item + c))
                lowest, highest = -maximum(-lowest, -number), maximum(highest, number)
                if number != number:
                    strange = single(1.0)
        item += step
    if floats != 0:
        note(found, lowest, highest, strange)
