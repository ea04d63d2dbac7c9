"""Weights into quantized blocks, as ``pio.kernels.packing``, to the bit: a warp takes a group of an output.

Lane i of sixteen holds numbers i and 16 + i of a group; the other sixteen hold the same, so that all know the result.
Of two products that are added the first is not rounded by itself, as the CPU's compiler has it on x86.
"""

from __future__ import annotations

from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import FORMATS, GROUP, PAIR
from pio.kernels._jit import PerDtype
from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda.ptx import (
    WARP,
    any_thread,
    as_f16,
    bits_of,
    block_index,
    fma,
    get_f32,
    grid_size,
    load,
    put_f32,
    put_u8,
    rint,
    round_to_int,
    shuffle_xor,
    shuffle_xor_i32,
    single,
    store,
    thread_index,
    times,
)
from pio.kernels.sizes import LARGEST_FLOAT16

BLOCK = 256  # threads
WARPS = BLOCK // WARP
TRIES = 9  # scales to either side of the largest weight's own
SHIFT = 1 / 80  # how far each is from the next, relative
BAD = 4 * 2 * GROUP  # where scratch says which row float16 cannot hold

get_f16, put_f16 = load["float16"], store["float16"]
pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)
header_bytes = PerDtype(lambda name: FORMATS[name].header_bytes)
group_bytes = PerDtype(lambda name: FORMATS[name].group_bytes)
bits = PerDtype(lambda name: FORMATS[name].bits)
most = PerDtype(lambda name: (1 << FORMATS[name].bits) - 1)  # largest stored number
offset = PerDtype(lambda name: FORMATS[name].offset)
minima = PerDtype(lambda name: int(FORMATS[name].minima))


@device_function
def total(x: float) -> float:
    """The sum over sixteen lanes, by halving."""
    for bit in range(4):
        x = x + shuffle_xor(x, 8 >> bit)
    return x


@device_function
def largest_of(a: float, b: float) -> float:
    """The largest number of a group."""
    best = b if b > a else a
    for bit in range(4):
        other = shuffle_xor(best, 8 >> bit)
        best = other if other > best else best
    return best


@device_function
def within(x: float, low: float, high: float) -> float:
    """A number, no less than one and no more than another."""
    x = low if low > x else x
    return high if high < x else x


@device_function
def best_scale(a: float, b: float, offset: int) -> float:
    """Return the scale with which a group loses least in squares; 1 for a group of zeros.

    Shapes: as ``pio.kernels.packing.best_scale``.
    """
    zero, top = single(0.0), float(offset)
    high, low = largest_of(a, b), largest_of(zero - a, zero - b)
    largest = high if high > low else -low
    if largest == zero:
        return single(1.0)
    found, scale = 0.0, zero
    for i in range(-TRIES, TRIES + 1):
        inverse = single(-top * (1.0 + SHIFT * i) / largest)
        p = within(rint(times(a, inverse)), single(-top), single(top - 1.0))
        q = within(rint(times(b, inverse)), single(-top), single(top - 1.0))
        products, squares = total(fma(a, p, times(b, q))), total(times(p, p) + times(q, q))  # fused as on the CPU
        if squares > zero and times(products, products) > found * squares:
            found, scale = float(times(products, products) / squares), products / squares
    return scale


@device_function
def best_line(a: float, b: float) -> tuple[float, float]:
    """Return scale and minimum with which a group loses least in squares, when 0 to 15 stand for its weights.

    Shapes: as ``pio.kernels.packing.best_line``.
    """
    zero, n, top = single(0.0), float(GROUP), 15.0
    high, low = largest_of(a, b), -largest_of(zero - a, zero - b)
    mean_w = total(a + b) / n
    scale, minimum = zero, single(mean_w)
    if not high > low:
        return scale, minimum
    least = -1.0
    for i in range(-TRIES, TRIES + 1):
        inverse = single(top * (1.0 + SHIFT * i) / (high - low))
        p = within(rint(times(a - low, inverse)), zero, single(top))
        q = within(rint(times(b - low, inverse)), zero, single(top))
        mean = total(p + q) / n
        dp, dq = p - single(mean), q - single(mean)
        spread = total(fma(dp, dp, times(dq, dq)))
        if spread > zero:
            slope = total(fma(a, dp, times(b, dq))) / spread
            base = single(mean_w - slope * mean)
            ea, eb = fma(-p, slope, a) - base, fma(-q, slope, b) - base
            error = total(fma(ea, ea, times(eb, eb)))
            if least < 0.0 or error < least:
                least, scale, minimum = float(error), slope, base
    return scale, minimum


@device_function_per_dtype
def pack_group(pair: int, g: int, o: int, a: float, b: float) -> None:
    """Quantize a group of one output and put it into its block.

    Shapes: as ``pio.kernels.packing.pack_group``.
    """
    at_scale, at_shift = pair + 2 * (OUTPUTS * g + o), pair + 2 * (OUTPUTS * (2 + g) + o)
    lane, shift = thread_index() % WARP, single(0.0)
    if int(minima) == 1:
        scale, shift = best_line(a, b)
        low = single(-LARGEST_FLOAT16)
        shift = low if low > shift else shift
        if lane == 0:
            put_f16(at_shift, shift)
        shift = as_f16(shift)
    else:
        scale = best_scale(a, b, int(offset))
    scale = as_f16(scale)
    scale = single(1.0) if scale == single(0.0) else scale
    if lane == 0:
        put_f16(at_scale, scale)
    inverse, zero, top = single(1.0 / scale), single(float(offset)), single(float(most))
    p = round_to_int(within(rint(times(a - shift, inverse)) + zero, single(0.0), top))
    q = round_to_int(within(rint(times(b - shift, inverse)) + zero, single(0.0), top))
    at = pair + header_bytes + g * group_bytes + 4 * o
    if int(bits) == 8:
        if lane < 16:
            put_u8(at + 64 * (lane // 4) + lane % 4, p)
            put_u8(at + 64 * (4 + lane // 4) + lane % 4, q)
    else:
        high_p, high_q = shuffle_xor_i32(p, 4), shuffle_xor_i32(q, 4)
        if lane < 16 and lane & 4 == 0:
            put_u8(at + 64 * (lane // 8) + lane % 4, p | high_p << 4)
            put_u8(at + 64 * (2 + lane // 8) + lane % 4, q | high_q << 4)


@device_function
def report_too_large(scratch: int, w: int, rows: int, k: int) -> None:
    """Write the first row, counted from 1, with a number that float16 cannot hold; one block looks at all of them.

    Shapes: w float32 (rows, k); scratch float32 (80,).
    """
    for r in range(rows):
        bad, i = 0, thread_index()
        while i < k:
            if bits_of(get_f32(w + 4 * (r * k + i))) & 0x7FFFFFFF > bits_of(single(LARGEST_FLOAT16)):
                bad = 1
            i += BLOCK
        if any_thread(bad) != 0:
            if thread_index() == 0:
                put_f32(scratch + BAD, single(r + 1))
            return


@cuda_kernel_per_dtype(block=BLOCK, blocks=2)
def pack(out: int, w: int, scratch: int, first: int, rows: int, k: int) -> None:
    """Quantize rows of weights into blocks, from block ``first`` on.

    stored = round((w - minimum) / scale) + offset; scale and minimum such that a group loses least in squares

    Shapes: w float32 (rows, k); out (blocks, pairs, bytes) as ``_formats`` lays it out, zeros where it is written;
    scratch float32 (80,) or more, zeros, where [64] becomes the first row, counted from 1, with a number that float16
    cannot hold. Missing rows and groups stay zero.
    """
    groups, pairs = (k + GROUP - 1) // GROUP, (k + PAIR - 1) // PAIR
    unit, half_lane = block_index() * WARPS + thread_index() // WARP, thread_index() % 16
    while unit < rows * groups:
        r = unit // groups
        at = (unit - r * groups) * GROUP
        left, source = min(k - at, GROUP), w + 4 * (r * k + at)
        # what is missing meets zeros: it must not widen the range
        a, b = get_f32(source + 4 * (half_lane % left)), get_f32(source + 4 * ((16 + half_lane) % left))
        zero = single(0.0)
        if max(largest_of(a, b), largest_of(zero - a, zero - b)) <= single(LARGEST_FLOAT16):
            pair = out + pair_bytes * ((first + r // OUTPUTS) * pairs + at // PAIR)
            pack_group(pair, at // GROUP % 2, r % OUTPUTS, a, b)
        unit += grid_size() * WARPS
    if block_index() == 0:
        report_too_large(scratch, w, rows, k)
