"""Pictures of another size, as ``pio.kernels.image_resize``: the same whole numbers, hence the same bytes."""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel, device_function
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    get_f32,
    get_i32,
    get_u8,
    grid_size,
    plus_f64,
    put_f32,
    put_i32,
    put_u8,
    quotient,
    single,
    thread_index,
    times,
    times_f64,
    truncated,
)

POINT = 22  # bits behind the point
HALF = 1 << POINT - 1
PIXELS = 5  # of three numbers that are laid out as sixteen


@device_function
def filter_at(x: float, cubic: int) -> float:
    """Return what a pixel at distance x weighs: of the cubic convolution with a = -1/2, or else a triangle.

    Every product and sum is rounded by itself, as in Pillow.
    """
    x = abs(x)
    if cubic == 0:
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        square = times_f64(times_f64(plus_f64(times_f64(1.5, x), -2.5), x), x)
        return plus_f64(square, 1.0)
    if x < 2.0:
        inner = plus_f64(times_f64(plus_f64(x, -5.0), x), 8.0)
        return times_f64(plus_f64(times_f64(inner, x), -4.0), -0.5)
    return 0.0


@device_function
def fixed(weight: float) -> int:
    """Return a weight with 22 bits behind the point, rounded to nearest."""
    scaled = times_f64(weight, 4194304.0)
    return truncated(plus_f64(scaled, -0.5 if weight < 0.0 else 0.5))


@device_function
def distance(i: int, center: float, inverse: float) -> float:
    """Return how far pixel i is from a center, in widths of the filter."""
    return times_f64(plus_f64(plus_f64(float(i), -center), 0.5), inverse)


@cuda_kernel
def resize_weights(
    weights: int, bounds: int, size: int, out_size: int, taps: int, cubic: int, antialias: int, form: int
) -> None:
    """Weigh the pixels of a row or column that each of the result is made of.

    weights[i, j] = filter((j + bounds[i, 0] - center + 1/2) / width) / sum_j, 0 <= j < bounds[i, 1], else 0
    center = (i + 1/2) * size / out_size; width = max(1, size / out_size), or 1 without antialias

    Shapes: bounds int32 (out_size, 2): first pixel and how many. weights float32 (out_size, taps) if form is 0, int32
    with 22 bits behind the point if 1; if 2, the same int32 (out_size, taps / 5, 16) three times each, for pixels of
    three bytes, five to a vector: what is between must be zero before. Sums in float64.
    """
    i, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while i < out_size:
        scale = float(size) / float(out_size)
        width = scale if scale > 1.0 and antialias != 0 else 1.0
        support = (2.0 if cubic != 0 else 1.0) * width
        center, inverse = times_f64(plus_f64(float(i), 0.5), scale), 1.0 / width
        first = max(0, truncated(plus_f64(plus_f64(center, -support), 0.5)))
        count = min(size, truncated(plus_f64(plus_f64(center, support), 0.5))) - first
        put_i32(bounds + 8 * i, first)
        put_i32(bounds + 8 * i + 4, count)
        total = 0.0
        for j in range(count):
            total = plus_f64(total, filter_at(distance(j + first, center, inverse), cubic))
        for j in range(taps):
            weight = 0.0
            if j < count:
                weight = filter_at(distance(j + first, center, inverse), cubic)
            if total != 0.0:
                weight = weight / total
            if form == 0:
                put_f32(weights + 4 * (i * taps + j), single(weight))
            elif form == 1:
                put_i32(weights + 4 * (i * taps + j), fixed(weight))
            else:
                at, whole = weights + 64 * (i * (taps // PIXELS) + j // PIXELS) + 12 * (j % PIXELS), fixed(weight)
                put_i32(at, whole)
                put_i32(at + 4, whole)
                put_i32(at + 8, whole)
        i += step


@device_function
def clipped(total: int) -> int:
    """Return a sum as a byte, cut behind the point."""
    return min(max(total >> POINT, 0), 255)


@cuda_kernel
def resize_rgb_rows(
    out: int, x: int, weights: int, bounds: int, scratch: int, rows: int, width: int, out_width: int, groups: int
) -> None:
    """Resize rows of pixels of three bytes: a thread makes a pixel.

    out[r, i, c] = clip((2^21 + sum_j weights[i, j] * x[r, bounds[i, 0] + j, c]) >> 22)

    Shapes: out uint8 (rows, out_width, 3); x uint8 (rows, width, 3); weights int32 (out_width, groups, 16), bounds
    int32 (out_width, 2), as ``resize_weights`` makes them in form 2; scratch is not used.
    """
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < rows * out_width:
        r = quotient(item, out_width)
        i = item - r * out_width
        at, count = x + 3 * (r * width + get_i32(bounds + 8 * i)), get_i32(bounds + 8 * i + 4)
        red = green = blue = HALF
        own, place = weights + 64 * groups * i, 0
        for j in range(count):
            weight = get_i32(own + place)
            red += weight * get_u8(at + 3 * j)
            green += weight * get_u8(at + 3 * j + 1)
            blue += weight * get_u8(at + 3 * j + 2)
            place += 12 if place & 63 != 48 else 16  # sixteen numbers hold five weights, three times each
        put_u8(out + 3 * item, clipped(red))
        put_u8(out + 3 * item + 1, clipped(green))
        put_u8(out + 3 * item + 2, clipped(blue))
        item += step


@cuda_kernel
def resize_rows(
    out: int, x: int, weights: int, bounds: int, rows: int, width: int, out_width: int, channels: int, taps: int
) -> None:
    """Resize rows of pixels of any number of bytes: a thread makes a byte.

    out[r, i, c] = clip((2^21 + sum_j weights[i, j] * x[r, bounds[i, 0] + j, c]) >> 22)

    Shapes: out uint8 (rows, out_width, channels); x uint8 (rows, width, channels); weights int32 (out_width, taps),
    bounds int32 (out_width, 2), as ``resize_weights`` makes them in form 1.
    """
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < rows * out_width * channels:
        pixel = quotient(item, channels)
        r = quotient(pixel, out_width)
        i = pixel - r * out_width
        at = x + (r * width + get_i32(bounds + 8 * i)) * channels + item - pixel * channels
        total = HALF
        for j in range(get_i32(bounds + 8 * i + 4)):
            total += get_i32(weights + 4 * (i * taps + j)) * get_u8(at + j * channels)
        put_u8(out + item, clipped(total))
        item += step


@cuda_kernel
def resize_columns(out: int, x: int, weights: int, bounds: int, out_rows: int, n: int, taps: int) -> None:
    """Resize columns of bytes: a thread makes a byte.

    out[i, c] = clip((2^21 + sum_j weights[i, j] * x[bounds[i, 0] + j, c]) >> 22)

    Shapes: out uint8 (out_rows, n); x uint8 (rows, n); weights int32 (out_rows, taps), bounds int32 (out_rows, 2), as
    ``resize_weights`` makes them in form 1.
    """
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < out_rows * n:
        i = quotient(item, n)
        at, total = x + get_i32(bounds + 8 * i) * n + item - i * n, HALF
        for j in range(get_i32(bounds + 8 * i + 4)):
            total += get_i32(weights + 4 * (i * taps + j)) * get_u8(at + j * n)
        put_u8(out + item, clipped(total))
        item += step


@cuda_kernel
def resize_float_rows(
    out: int, x: int, weights: int, bounds: int, rows: int, width: int, out_width: int, channels: int, taps: int
) -> None:
    """Resize rows of float32 pixels: a thread makes a number.

    out[r, i, c] = sum_j weights[i, j] * x[r, bounds[i, 0] + j, c]

    Shapes: out float32 (rows, out_width, channels); x float32 (rows, width, channels); weights float32 (out_width,
    taps), bounds int32 (out_width, 2), as ``resize_weights`` makes them in form 0. Sums in float64 in the order of j.
    """
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < rows * out_width * channels:
        pixel = quotient(item, channels)
        r = quotient(pixel, out_width)
        i = pixel - r * out_width
        at = x + 4 * ((r * width + get_i32(bounds + 8 * i)) * channels + item - pixel * channels)
        total = 0.0
        for j in range(get_i32(bounds + 8 * i + 4)):
            product = times(get_f32(weights + 4 * (i * taps + j)), get_f32(at + 4 * j * channels))
            total = plus_f64(total, float(product))
        put_f32(out + 4 * item, single(total))
        item += step


@cuda_kernel
def resize_float_columns(out: int, x: int, weights: int, bounds: int, out_rows: int, n: int, taps: int) -> None:
    """Resize columns of float32: a thread makes a number.

    out[i, c] = sum_j weights[i, j] * x[bounds[i, 0] + j, c]

    Shapes: out float32 (out_rows, n); x float32 (rows, n); weights float32 (out_rows, taps), bounds int32 (out_rows,
    2), as ``resize_weights`` makes them in form 0. Sums in float32 in the order of j.
    """
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < out_rows * n:
        i = quotient(item, n)
        at, total = x + 4 * (get_i32(bounds + 8 * i) * n + item - i * n), single(0.0)
        for j in range(get_i32(bounds + 8 * i + 4)):
            total = fma(get_f32(at + 4 * j * n), get_f32(weights + 4 * (i * taps + j)), total)
        put_f32(out + 4 * item, total)
        item += step
