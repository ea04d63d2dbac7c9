"""Pictures of another size: each pixel a weighted mean of those near it, first along the rows, then along the columns.

Bytes are weighted by whole numbers with 22 bits behind the point and rounded between the two passes, as Pillow does,
whose pixels these are.
"""

from __future__ import annotations

from pio.kernels._int_lanes import (
    HALF,
    POINT,
    add_product,
    load_i32,
    load_part_u8,
    load_u8,
    splat_i32,
    store_clipped,
    store_part_clipped,
    store_pixel,
)
from pio.kernels._jit import kernel
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import LANES, fma, get_f32, get_i32, get_u8, put_f32, put_i32, put_u8, splat
from pio.kernels.sizes import PIXELS, RESIZE_PARTS

ROWS = 4  # rows that meet a vector of weights together
# Weights are those of Pillow only where no product and sum are rounded as one.
EXACT = {"nsz"}


@kernel(fastmath=EXACT)
def filter_at(x: float, cubic: int) -> float:
    """Return what a pixel at distance x weighs: of the cubic convolution with a = -1/2, or else a triangle.

    Shapes: none.
    """
    x = abs(x)
    if cubic != 0:
        if x < 1.0:
            return (1.5 * x - 2.5) * x * x + 1.0
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0
    return 1.0 - x if x < 1.0 else 0.0


@kernel(fastmath=EXACT)
def fixed(weight: float) -> int:
    """Return a weight with 22 bits behind the point, rounded to nearest.

    Shapes: none.
    """
    scaled = weight * (1 << POINT)
    return int(scaled - 0.5) if weight < 0.0 else int(scaled + 0.5)


@kernel(fastmath=EXACT)
def weigh(
    weights: int, bounds: int, i: int, size: int, out_size: int, taps: int, cubic: int, antialias: int, form: int
) -> None:
    """Weigh the pixels that one of the result is made of; their weights sum to one.

    Shapes: as ``resize_weights``.
    """
    scale = size / out_size
    width = scale if scale > 1.0 and antialias != 0 else 1.0
    support = (2.0 if cubic != 0 else 1.0) * width
    center, inverse = (i + 0.5) * scale, 1.0 / width
    first = max(0, int(center - support + 0.5))
    count = min(size, int(center + support + 0.5)) - first
    put_i32(bounds + 8 * i, first)
    put_i32(bounds + 8 * i + 4, count)
    total = 0.0
    for j in range(count):
        total += filter_at((j + first - center + 0.5) * inverse, cubic)
    for j in range(taps):
        weight = filter_at((j + first - center + 0.5) * inverse, cubic) if j < count else 0.0
        if total != 0.0:
            weight /= total
        if form == 0:
            put_f32(weights + 4 * (i * taps + j), weight)
        elif form == 1:
            put_i32(weights + 4 * (i * taps + j), fixed(weight))
        else:
            at = weights + 64 * (i * (taps // PIXELS) + j // PIXELS) + 12 * (j % PIXELS)
            for c in range(3):
                put_i32(at + 4 * c, fixed(weight))


@parallel_kernel
def resize_weights(
    weights: int, bounds: int, size: int, out_size: int, taps: int, cubic: int, antialias: int, form: int, part: int,
    parts: int,
) -> None:  # fmt: skip
    """Weigh the pixels of a row or column that each of the result is made of.

    weights[i, j] = filter((j + bounds[i, 0] - center + 1/2) / width) / sum_j, 0 <= j < bounds[i, 1], else 0
    center = (i + 1/2) * size / out_size; width = max(1, size / out_size), or 1 without antialias

    Shapes: bounds int32 (out_size, 2): first pixel and how many. weights float32 (out_size, taps) if form is 0, int32
    with 22 bits behind the point if 1; if 2, the same int32 (out_size, taps / 5, 16) three times each, for pixels of
    three bytes, five to a vector: what is between must be zero before. Sums in float64.
    """
    for i in range(part * out_size // parts, (part + 1) * out_size // parts):
        weigh(weights, bounds, i, size, out_size, taps, cubic, antialias, form)


@kernel
def resize_four(out: int, x: int, weights: int, groups: int, ldo: int, ldx: int) -> None:
    """Make one pixel of each of four rows.

    Shapes: out uint8, four times (3,), ldo bytes apart; x uint8, four times (15 * groups + 1,), ldx bytes apart;
    weights int32 (groups, 16).
    """
    a, b, c, d = splat_i32(0), splat_i32(0), splat_i32(0), splat_i32(0)
    for g in range(groups):
        w, at = load_i32(weights + 64 * g), x + 3 * PIXELS * g
        a = add_product(a, load_u8(at), w)
        b = add_product(b, load_u8(at + ldx), w)
        c = add_product(c, load_u8(at + 2 * ldx), w)
        d = add_product(d, load_u8(at + 3 * ldx), w)
    store_pixel(out, a)
    store_pixel(out + ldo, b)
    store_pixel(out + 2 * ldo, c)
    store_pixel(out + 3 * ldo, d)


@kernel
def resize_one(out: int, x: int, weights: int, bounds: int, out_width: int, groups: int) -> None:
    """Resize one row of pixels of three bytes.

    Shapes: as ``resize_rgb_rows``, of one row; 15 * groups + 1 bytes behind each first pixel can be read.
    """
    for i in range(out_width):
        total, at = splat_i32(0), x + 3 * get_i32(bounds + 8 * i)
        for g in range(groups):
            w = load_i32(weights + 64 * (i * groups + g))
            total = add_product(total, load_u8(at + 3 * PIXELS * g), w)
        store_pixel(out + 3 * i, total)


@parallel_kernel(parts_per_thread=RESIZE_PARTS)
def resize_rgb_rows(
    out: int, x: int, weights: int, bounds: int, scratch: int, rows: int, width: int, out_width: int, groups: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """Resize rows of pixels of three bytes, rows split over threads.

    out[r, i, c] = clip((2^21 + sum_j weights[i, j] * x[r, bounds[i, 0] + j, c]) >> 22)

    Shapes: out uint8 (rows, out_width, 3); x uint8 (rows, width, 3); weights int32 (out_width, groups, 16), bounds
    int32 (out_width, 2), as ``resize_weights`` makes them in form 2; scratch uint8 (parts, 3 * width + 15 * groups +
    16). Sums in int32.
    """
    behind = 3 * PIXELS * groups + LANES  # bytes behind a row's last pixel that its vectors may take along
    ldx, ldo, end = 3 * width, 3 * out_width, x + 3 * width * rows
    r, last = part * rows // parts, (part + 1) * rows // parts
    while r < last:
        if r + ROWS <= last and x + ldx * (r + ROWS) + behind <= end:
            for i in range(out_width):
                at = x + ldx * r + 3 * get_i32(bounds + 8 * i)
                resize_four(out + ldo * r + 3 * i, at, weights + 64 * i * groups, groups, ldo, ldx)
            r += ROWS
            continue
        row = x + ldx * r
        if row + ldx + behind > end:
            own = scratch + part * (ldx + behind)
            for i in range(ldx):
                put_u8(own + i, get_u8(row + i))
            row = own
        resize_one(out + ldo * r, row, weights, bounds, out_width, groups)
        r += 1


@parallel_kernel
def resize_rows(
    out: int, x: int, weights: int, bounds: int, rows: int, width: int, out_width: int, channels: int, taps: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """Resize rows of pixels of any number of bytes, rows split over threads.

    out[r, i, c] = clip((2^21 + sum_j weights[i, j] * x[r, bounds[i, 0] + j, c]) >> 22)

    Shapes: out uint8 (rows, out_width, channels); x uint8 (rows, width, channels); weights int32 (out_width, taps),
    bounds int32 (out_width, 2), as ``resize_weights`` makes them in form 1.
    """
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        for i in range(out_width):
            first, count = get_i32(bounds + 8 * i), get_i32(bounds + 8 * i + 4)
            for c in range(channels):
                total, at = HALF, x + (r * width + first) * channels + c
                for j in range(count):
                    total += get_i32(weights + 4 * (i * taps + j)) * get_u8(at + j * channels)
                put_u8(out + (r * out_width + i) * channels + c, min(max(total >> POINT, 0), 255))


@kernel
def resize_column_lanes(out: int, x: int, weights: int, count: int, n: int, ldx: int) -> None:
    """Make n <= 16 bytes of one row from those above each other in several.

    Shapes: out uint8 (n,); x uint8 (count, n), row stride ldx; weights int32 (count,).
    """
    total = splat_i32(HALF)
    for j in range(count):
        total = add_product(total, load_part_u8(x + j * ldx, n), splat_i32(get_i32(weights + 4 * j)))
    store_part_clipped(out, total, n)


@kernel
def resize_column_block(out: int, x: int, weights: int, count: int, ldx: int) -> None:
    """Make 64 bytes of one row: as ``resize_column_lanes``, four vectors beside each other.

    Shapes: as ``resize_column_lanes``, n = 64.
    """
    a, b, c, d = splat_i32(HALF), splat_i32(HALF), splat_i32(HALF), splat_i32(HALF)
    for j in range(count):
        w, at = splat_i32(get_i32(weights + 4 * j)), x + j * ldx
        a = add_product(a, load_u8(at), w)
        b = add_product(b, load_u8(at + LANES), w)
        c = add_product(c, load_u8(at + 2 * LANES), w)
        d = add_product(d, load_u8(at + 3 * LANES), w)
    store_clipped(out, a)
    store_clipped(out + LANES, b)
    store_clipped(out + 2 * LANES, c)
    store_clipped(out + 3 * LANES, d)


@parallel_kernel(parts_per_thread=RESIZE_PARTS)
def resize_columns(
    out: int, x: int, weights: int, bounds: int, out_rows: int, n: int, taps: int, part: int, parts: int
) -> None:
    """Resize columns of bytes, rows of the result split over threads.

    out[i, c] = clip((2^21 + sum_j weights[i, j] * x[bounds[i, 0] + j, c]) >> 22)

    Shapes: out uint8 (out_rows, n); x uint8 (rows, n); weights int32 (out_rows, taps), bounds int32 (out_rows, 2), as
    ``resize_weights`` makes them in form 1. Sums in int32.
    """
    whole = n - n % (4 * LANES)
    for i in range(part * out_rows // parts, (part + 1) * out_rows // parts):
        own, at = weights + 4 * i * taps, x + get_i32(bounds + 8 * i) * n
        count = get_i32(bounds + 8 * i + 4)
        for c in range(0, whole, 4 * LANES):
            resize_column_block(out + i * n + c, at + c, own, count, n)
        for c in range(whole, n, LANES):
            resize_column_lanes(out + i * n + c, at + c, own, count, min(LANES, n - c), n)


@parallel_kernel
def resize_float_rows(
    out: int, x: int, weights: int, bounds: int, rows: int, width: int, out_width: int, channels: int, taps: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """Resize rows of float32 pixels, rows split over threads.

    out[r, i, c] = sum_j weights[i, j] * x[r, bounds[i, 0] + j, c]

    Shapes: out float32 (rows, out_width, channels); x float32 (rows, width, channels); weights float32 (out_width,
    taps), bounds int32 (out_width, 2), as ``resize_weights`` makes them in form 0. Sums in float64 in the order of j.
    """
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        for i in range(out_width):
            first, count = get_i32(bounds + 8 * i), get_i32(bounds + 8 * i + 4)
            for c in range(channels):
                total, at = 0.0, x + 4 * ((r * width + first) * channels + c)
                for j in range(count):
                    total += get_f32(weights + 4 * (i * taps + j)) * get_f32(at + 4 * j * channels)
                put_f32(out + 4 * ((r * out_width + i) * channels + c), total)


@parallel_kernel
def resize_float_columns(
    out: int, x: int, weights: int, bounds: int, out_rows: int, n: int, taps: int, part: int, parts: int
) -> None:
    """Resize columns of float32, rows of the result split over threads.

    out[i, c] = sum_j weights[i, j] * x[bounds[i, 0] + j, c]

    Shapes: out float32 (out_rows, n); x float32 (rows, n); weights float32 (out_rows, taps), bounds int32 (out_rows,
    2), as ``resize_weights`` makes them in form 0. Sums in float32 in the order of j.
    """
    for i in range(part * out_rows // parts, (part + 1) * out_rows // parts):
        first, count = get_i32(bounds + 8 * i), get_i32(bounds + 8 * i + 4)
        for c in range(0, n, LANES):
            total, at = splat(0.0), x + 4 * (first * n + c)
            for j in range(count):
                total = fma(load_up_to(at + 4 * j * n, n - c), splat(get_f32(weights + 4 * (i * taps + j))), total)
            store_up_to(out + 4 * (i * n + c), total, n - c)
