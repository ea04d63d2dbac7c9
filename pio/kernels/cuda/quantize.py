"""Activations as int8 by groups of 32, with powers of two as scales, as ``pio.kernels.quantize``: the same bytes."""

from __future__ import annotations

from pio.kernels._formats import EXPONENT, FORMATS, GROUP, PAIR, RECORD, START
from pio.kernels._jit import PerDtype
from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda.ptx import (
    WARP,
    any_thread,
    bits_of,
    block_index,
    get_f32,
    grid_size,
    of_bits,
    put_f32,
    put_i32,
    put_u8,
    round_to_int,
    shuffle_xor_i32,
    single,
    single_of,
    thread_index,
)

BLOCK = 256  # threads
PAIRS = BLOCK // WARP  # of a block at once, one of each warp
BIAS = 127  # of a float32's exponent
NAN = 0x7FC00000
LOWEST, HIGHEST = -102, 112  # exponents of scales, so that the product with any scale of weights is a normal float32
TOO_LARGE = ((BIAS + 6 + HIGHEST) << EXPONENT) + (0x7F << 16)  # bits from which on a number is none, or beyond

offset = PerDtype(lambda name: FORMATS[name].offset)
minima = PerDtype(lambda name: int(FORMATS[name].minima))


@device_function
def magnitude(x: float) -> int:
    """The bits of a number without its sign: as integers they have the order of magnitudes, and NaN is the largest."""
    return bits_of(x) & 0x7FFFFFFF


@device_function
def warp_max(x: int) -> int:
    """The largest integer of the lanes of a warp."""
    for bit in range(5):
        x = max(x, shuffle_xor_i32(x, 1 << bit))
    return x


@device_function
def warp_total(x: int) -> int:
    """The sum of the integers of the lanes of a warp."""
    for bit in range(5):
        x = x + shuffle_xor_i32(x, 1 << bit)
    return x


@device_function_per_dtype
def quantize_group(record: int, g: int, lane: int, x: float) -> None:
    """Quantize a group, a number of each lane; what holds no number, or too large a one, becomes zeros.

    scale = the least power of two with which no |x| rounds to more than 127, q = round(x / scale), halves to even

    Shapes: record as ``_formats`` lays it out, of which group g is written.
    """
    largest = warp_max(magnitude(x))
    power = ((largest + (1 << 16)) & (255 << EXPONENT)) - (6 << EXPONENT)
    if largest >= TOO_LARGE:
        power = BIAS << EXPONENT
    power = max(power, (BIAS + LOWEST) << EXPONENT)
    whole = 0 if largest >= TOO_LARGE else round_to_int(x * of_bits((2 * BIAS << EXPONENT) - power))
    put_u8(record + GROUP * g + lane, whole)
    total = warp_total(whole)
    if lane == 0:
        put_i32(record + PAIR + 4 * g, power - (BIAS << EXPONENT))
        if int(minima) == 1:
            put_f32(record + PAIR + 8 + 4 * g, of_bits(power) * single_of(total))
        else:
            put_i32(record + PAIR + 8 + 4 * g, -int(offset) * total)


@device_function_per_dtype
def quantize_some(out: int, x: int, chunk: int, k: int) -> None:
    """Quantize PAIRS pairs of a row; those who have the first say whether the whole row holds numbers.

    Shapes: x float32 (k,); out (16 + 80 ceil(k / 64),) bytes.
    """
    lane, p = thread_index() % WARP, chunk * PAIRS + thread_index() // WARP
    if p * PAIR < k:
        for g in range(2):
            i, value = PAIR * p + GROUP * g + lane, single(0.0)
            if i < k:
                value = get_f32(x + 4 * i)
            quantize_group(out + START + RECORD * p, g, lane, value)
    if chunk == 0:
        bad, i = 0, thread_index()
        while i < k:
            if magnitude(get_f32(x + 4 * i)) >= TOO_LARGE:
                bad = 1
            i += BLOCK
        bad = any_thread(bad)
        if thread_index() == 0:
            put_i32(out, NAN if bad != 0 else 0)


@device_function
def chunks_of(k: int) -> int:
    """How many blocks quantize a row; one for a row of nothing."""
    return max((k + PAIR * PAIRS - 1) // (PAIR * PAIRS), 1)


@cuda_kernel_per_dtype(block=BLOCK)
def quantize(out: int, x: int, rows: int, k: int) -> None:
    """Quantize rows of activations for weights of the kernel's format.

    scale[r, g] = the least power of two with which no |x| rounds to more than 127, q = round(x / scale), halves to even

    Shapes: x float32 (rows, k); out (rows, 16 + 80 ceil(k / 64)) bytes, laid out as ``_formats`` says. out must not
    overlap x. A row with NaN, infinity or what is beyond 1e36 has sums that start from NaN.
    """
    pairs, chunks, unit = (k + PAIR - 1) // PAIR, chunks_of(k), block_index()
    while unit < rows * chunks:
        r = unit // chunks
        quantize_some(out + r * (START + pairs * RECORD), x + 4 * r * k, unit - r * chunks, k)
        unit += grid_size()
