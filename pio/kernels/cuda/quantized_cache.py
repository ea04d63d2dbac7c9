"""A paged cache of int8, as ``pio.kernels.quantized_cache``: how keys and values get there; a warp takes a position."""

from __future__ import annotations

from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import EXPONENT, FORMATS, GROUP, PAIR
from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda.ptx import (
    WARP,
    bits_of,
    get_f32,
    magnitude,
    maximum_or_nan,
    of_bits,
    put_f32,
    put_u8,
    round_to_int,
    shuffle_xor,
    single,
    store,
)
from pio.kernels.sizes import BLOCK, KEY_PAIR

KEY_HEADER = FORMATS["int8"].header_bytes
KEY_GROUP = FORMATS["int8"].group_bytes
LARGEST, SMALLEST = 127.0, 1e-30
BIAS = 127  # of a float32's exponent
LOWEST, HIGHEST = -24, 15  # exponents of keys' scales, which float16 holds
put_f16 = store["float16"]


@device_function
def warp_maximum(x: float) -> float:
    """The largest number of a warp, NaN where one of them is none."""
    for bit in range(5):
        x = maximum_or_nan(x, shuffle_xor(x, 1 << bit))
    return x


@device_function
def scale_bits(largest: float, lowest: int, highest: int) -> int:
    """The bits of the least power of two with which a magnitude rounds to no more than 127; -1 where there is none."""
    size = bits_of(largest)
    if size >= ((BIAS + 6 + highest) << EXPONENT) + (0x7F << 16):
        return -1
    return max(((size + (1 << 16)) & (255 << EXPONENT)) - (6 << EXPONENT), (BIAS + lowest) << EXPONENT)


@device_function
def inverse_of(bits: int) -> float:
    """One divided by a power of two, which is given by its bits."""
    return of_bits((2 * BIAS << EXPONENT) - bits)


@device_function
def number_or_zero(place: int, i: int, n: int) -> float:
    """Number i of n, zero behind them."""
    return get_f32(place + 4 * i) if i < n else single(0.0)


@device_function
def store_key(block: int, slot: int, k: int, head_dim: int, lane: int) -> bool:
    """Quantize a key and put it into its block, a group at a time; return whether it holds what is no number.

    Shapes: as in ``pio.kernels.quantized_cache.store_key``.
    """
    pairs, o, bad = (head_dim + PAIR - 1) // PAIR, slot % OUTPUTS, False
    half = block + slot // OUTPUTS * pairs * KEY_PAIR
    for group in range(2 * pairs):
        x = number_or_zero(k, GROUP * group + lane, head_dim)
        bits = scale_bits(warp_maximum(magnitude(x)), LOWEST, HIGHEST)
        if bits < 0:
            bad, bits = True, BIAS << EXPONENT
        pair, g = half + group // 2 * KEY_PAIR, group % 2
        if lane == 0:
            put_f16(pair + 2 * (OUTPUTS * g + o), of_bits(bits))
        place = pair + KEY_HEADER + g * KEY_GROUP + 64 * (lane // 4) + 4 * o + lane % 4
        put_u8(place, round_to_int(x * inverse_of(bits)) + 128)
    return bad


@device_function
def store_value(block: int, slot: int, v: int, head_dim: int, width: int, bad: bool, lane: int) -> None:
    """Quantize a value and put it into its block; its scale is NaN where it, or its key, holds what is no number.

    Shapes: as in ``pio.kernels.quantized_cache.store_value``.
    """
    most, i = single(0.0), lane
    while i < head_dim:
        x = get_f32(v + 4 * i)
        most = maximum_or_nan(most, magnitude(x) + (x - x))
        i += WARP
    largest = float(warp_maximum(most))
    inverse = single(LARGEST / largest) if largest > SMALLEST else single(0.0)
    if lane == 0:
        put_f32(block + BLOCK * width + 4 * slot, of_bits(0x7FC00000) if bad else single(largest * (1.0 / LARGEST)))
    i = lane
    while i < width:
        put_u8(block + 4 * (slot // 4 * width + i) + slot % 4, round_to_int(number_or_zero(v, i, head_dim) * inverse))
        i += WARP


@device_function
def store_position(keys: int, values: int, head: int, slot: int, k: int, v: int, head_dim: int, lane: int) -> None:
    """Put the key and the value of a position and head into their block, quantized.

    Shapes: k, v float32 (head_dim,); keys (blocks, kv_heads, key_bytes) and values (blocks, kv_heads, value_bytes), of
    which head counts blocks and heads.
    """
    width, key_step = (head_dim + 15) // 16 * 16, BLOCK // OUTPUTS * ((head_dim + PAIR - 1) // PAIR) * KEY_PAIR
    bad = store_key(keys + head * key_step, slot, k, head_dim, lane)
    store_value(values + head * (BLOCK * width + 4 * BLOCK), slot, v, head_dim, width, bad, lane)
