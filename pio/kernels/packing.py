"""Weights into quantized blocks and back: the scale of a group is the one that loses least."""

from __future__ import annotations

from pio.kernels._formats import BLOCK, FORMATS, GROUP, PAIR
from pio.kernels._jit import PerDtype, kernel, kernel_per_dtype
from pio.kernels.gather import index_at
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import (
    get_f16,
    get_f32,
    get_u8,
    load_f32,
    max_lanes,
    maximum,
    minimum,
    put_f16,
    put_f32,
    put_u8,
    rint,
    splat,
    store_f32,
    sum_lanes,
)
from pio.kernels.sizes import LARGEST_FLOAT16
from pio.kernels.sizes import PACKING_FLOATS as SCRATCH

pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)
header_bytes = PerDtype(lambda name: FORMATS[name].header_bytes)
group_bytes = PerDtype(lambda name: FORMATS[name].group_bytes)
bits = PerDtype(lambda name: FORMATS[name].bits)
most = PerDtype(lambda name: (1 << FORMATS[name].bits) - 1)  # largest stored number
offset = PerDtype(lambda name: FORMATS[name].offset)
minima = PerDtype(lambda name: int(FORMATS[name].minima))

TRIES = 9  # scales to either side of the largest weight's own
SHIFT = 1 / 80  # how far each is from the next, relative


@kernel
def too_large(w: int) -> bool:
    """Return whether a group has a number that float16 cannot hold.

    Shapes: w float32 (32,).
    """
    a, b, zero = load_f32(w), load_f32(w + 4 * 16), splat(0.0)
    return max_lanes(maximum(maximum(a, b), maximum(zero - a, zero - b))) > LARGEST_FLOAT16


@kernel
def best_scale(w: int, offset: int) -> float:
    """Return the scale with which a group loses least in squares, as float16 rounds it.

    The largest weight becomes -offset times the scale, or a little less or more; each choice of whole numbers then has
    a best scale, sum(w q) / sum(q q), and is the better the larger sum(w q)^2 / sum(q q). A group of zeros gets 1.

    Shapes: w float32 (32,). Sums in float32.
    """
    a, b = load_f32(w), load_f32(w + 4 * 16)
    zero, top = splat(0.0), float(offset)
    high = max(max_lanes(a), max_lanes(b))
    low = max(max_lanes(zero - a), max_lanes(zero - b))
    largest = high if high > low else -low
    if largest == 0.0:
        return 1.0
    found, scale = 0.0, 0.0
    for i in range(-TRIES, TRIES + 1):
        inverse = splat(-top * (1.0 + SHIFT * i) / largest)
        p = minimum(maximum(rint(a * inverse), splat(-top)), splat(top - 1.0))
        q = minimum(maximum(rint(b * inverse), splat(-top)), splat(top - 1.0))
        products, squares = sum_lanes(a * p + b * q), sum_lanes(p * p + q * q)
        if squares > 0.0 and products * products > found * squares:
            found, scale = products * products / squares, products / squares
    return scale


@kernel
def best_line(w: int, out: int) -> None:
    """Find scale and minimum with which a group loses least in squares, when 0 to 15 stand for its weights.

    Each choice of whole numbers q has a best line: scale = cov(w, q) / var(q), minimum = mean(w) - scale mean(q).

    Shapes: w float32 (32,); out float32 (2,), scale and minimum. Sums in float32.
    """
    a, b = load_f32(w), load_f32(w + 4 * 16)
    zero, n, top = splat(0.0), float(GROUP), 15.0
    high = max(max_lanes(a), max_lanes(b))
    low = -max(max_lanes(zero - a), max_lanes(zero - b))
    total = sum_lanes(a + b)
    put_f32(out, 0.0)
    put_f32(out + 4, total / n)
    if not high > low:
        return
    least = -1.0
    for i in range(-TRIES, TRIES + 1):
        inverse = top * (1.0 + SHIFT * i) / (high - low)
        p = minimum(maximum(rint((a - splat(low)) * splat(inverse)), zero), splat(top))
        q = minimum(maximum(rint((b - splat(low)) * splat(inverse)), zero), splat(top))
        mean = sum_lanes(p + q) / n
        dp, dq = p - splat(mean), q - splat(mean)
        spread = sum_lanes(dp * dp + dq * dq)
        if spread > 0.0:
            scale = sum_lanes(a * dp + b * dq) / spread
            base = splat(total / n - scale * mean)
            ea, eb = a - p * splat(scale) - base, b - q * splat(scale) - base
            error = sum_lanes(ea * ea + eb * eb)
            if least < 0.0 or error < least:
                least = error
                put_f32(out, scale)
                put_f32(out + 4, total / n - scale * mean)


@kernel_per_dtype
def pack_group(pair: int, w: int, scratch: int, g: int, o: int) -> None:
    """Quantize a group of one output and put it into its block.

    stored = round((w - minimum) / scale) + offset, within what its bits hold; a scale that float16 has as zero is one

    Shapes: w float32 (32,); pair as ``_formats`` lays it out, where the output's nibbles are zero; scratch float32
    (32,).
    """
    shift = 0.0
    if int(minima) == 1:
        best_line(w, scratch)
        put_f16(pair + 2 * (BLOCK * g + o), get_f32(scratch))
        put_f16(pair + 2 * (BLOCK * (2 + g) + o), max(get_f32(scratch + 4), -LARGEST_FLOAT16))
        shift = get_f16(pair + 2 * (BLOCK * (2 + g) + o))
    else:
        put_f16(pair + 2 * (BLOCK * g + o), best_scale(w, int(offset)))
    if get_f16(pair + 2 * (BLOCK * g + o)) == 0.0:
        put_f16(pair + 2 * (BLOCK * g + o), 1.0)
    inverse = 1.0 / get_f16(pair + 2 * (BLOCK * g + o))
    for i in range(2):
        v = rint((load_f32(w + 64 * i) - splat(shift)) * splat(inverse)) + splat(float(offset))
        store_f32(scratch + 64 * i, minimum(maximum(v, splat(0.0)), splat(float(most))))
    at = pair + header_bytes + g * group_bytes + 4 * o
    for i in range(GROUP):
        q = int(get_f32(scratch + 4 * i))
        if int(bits) == 8:
            put_u8(at + 64 * (i // 4) + i % 4, q)
        else:
            place = at + 64 * (i // 8) + i % 4
            put_u8(place, get_u8(place) | (q << 4 if i % 8 > 3 else q))


@kernel_per_dtype
def unpack_row(out: int, w: int, row: int, k: int) -> None:
    """Write one row of packed weights as float32.

    out[i] = scale * (stored - offset), or scale * stored + minimum

    Shapes: w (blocks, pairs, bytes) as ``_formats`` lays it out; out float32 (k,).
    """
    pairs = (k + PAIR - 1) // PAIR
    block, o = w + row // BLOCK * (pair_bytes * pairs), row % BLOCK
    for first in range(0, k, GROUP):
        g = first // GROUP % 2
        pair = block + pair_bytes * (first // PAIR)
        scale, shift = get_f16(pair + 2 * (BLOCK * g + o)), 0.0
        if int(minima) == 1:
            shift = get_f16(pair + 2 * (BLOCK * (2 + g) + o))
        at = pair + header_bytes + g * group_bytes + 4 * o
        for i in range(min(GROUP, k - first)):
            if int(bits) == 8:
                q = get_u8(at + 64 * (i // 4) + i % 4)
            else:
                q = get_u8(at + 64 * (i // 8) + i % 4) >> (i % 8 // 4 * 4) & 15
            put_f32(out + 4 * (first + i), scale * float(q - offset) + shift)


@parallel_kernel_per_dtype
def pack(out: int, w: int, scratch: int, first: int, rows: int, k: int, part: int, parts: int) -> None:
    """Quantize rows of weights into blocks, from block ``first`` on.

    stored = round((w - minimum) / scale) + offset; scale and minimum such that a group loses least in squares

    Shapes: w float32 (rows, k); out (blocks, pairs, bytes) as ``_formats`` lays it out, zeros where it is written;
    scratch float32 (parts, 80), zeros, where [part, 64] becomes the first row, counted from 1, with a number that
    float16 cannot hold. Missing rows and groups stay zero.
    """
    blocks, pairs = (rows + BLOCK - 1) // BLOCK, (k + PAIR - 1) // PAIR
    own = scratch + 4 * SCRATCH * part
    for b in range(part * blocks // parts, (part + 1) * blocks // parts):
        for r in range(BLOCK * b, min(BLOCK * (b + 1), rows)):
            for at in range(0, k, GROUP):
                pair = out + pair_bytes * ((first + b) * pairs + at // PAIR)
                source = w + 4 * (r * k + at)
                if k - at < GROUP:
                    for i in range(GROUP):  # what is missing meets zeros: it must not widen the range
                        put_f32(own + 4 * (GROUP + i), get_f32(source + 4 * (i % (k - at))))
                    source = own + 4 * GROUP
                if not too_large(source):
                    pack_group(pair, source, own, at // GROUP % 2, r % BLOCK)
                elif get_f32(own + 8 * GROUP) == 0.0:
                    put_f32(own + 8 * GROUP, float(r + 1))


@parallel_kernel_per_dtype
def unpack(out: int, w: int, indices: int, rows: int, k: int, wide: int, part: int, parts: int) -> None:
    """Write rows of packed weights as float32, split by rows: an embedding.

    out[i] = row indices[i] of w; row i where indices is 0

    Shapes: w (blocks, pairs, bytes) as ``_formats`` lays it out; indices int32, or int64 where wide is 1, (rows,);
    out float32 (rows, k).
    """
    for i in range(part * rows // parts, (part + 1) * rows // parts):
        row = i
        if indices != 0:
            row = index_at(indices, i, wide)
        unpack_row(out + 4 * i * k, w, row, k)
