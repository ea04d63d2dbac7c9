"""A paged cache of int8: how keys and values lie in memory, and how they get there.

A cache block holds 32 positions of one key/value head. Keys are two packed blocks of 16 positions in the format int8
of ``_formats``: a position is an output, its head's elements are inputs, with a scale for each 32 of them. Values are
int8 (8, width, 4), four positions side by side, and a float32 scale for each position.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import ctypes
import math
from typing import Any, Final

from llvmlite import ir

from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import EXPONENT, FORMATS, GROUP, PAIR, RECORD, START
from pio.kernels._jit import kernel
from pio.kernels._partial_vectors import load_up_to
from pio.kernels.quantize import BIAS, quantize_row
from pio.kernels.simd import (
    LANES,
    MAGIC,
    VEC,
    Vec,
    get_f32,
    get_i32,
    int64,
    max_lanes,
    maximum,
    primitive,
    put_f16,
    put_f32,
    put_i32,
    splat,
    sum_lanes,
    void,
)
from pio.kernels.sizes import BLOCK, KEY_PAIR

KEY_HEADER: Final = FORMATS["int8"].header_bytes
KEY_GROUP: Final = FORMATS["int8"].group_bytes
FOUR_SIGNS: Final = -0x7F7F7F80  # the sign bits of four bytes

LARGEST: Final = 127.0
SMALLEST: Final = 1e-30  # a value of nothing larger is one of zeros: its inverse would not be finite

quantize_key = quantize_row["key"]


def _emit_put_bytes(b: Any, address: Any, which: Any, v: Any) -> None:
    whole = b.bitcast(b.fadd(v, ll.constant(MAGIC)), ll.I32X16)
    shift = ll.splat(b, b.trunc(b.shl(which, ll.i64_const(3)), ll.I32))
    byte = ir.Constant(ll.I32X16, [255] * LANES)
    kept = b.and_(ll.load(b, address, ll.I32X16, 1), b.not_(b.shl(byte, shift)))
    ll.store(b, address, b.or_(kept, b.shl(b.and_(whole, byte), shift)), 1)


@primitive(void, int64, int64, VEC, emit=_emit_put_bytes)
def put_bytes(address: int, which: int, v: Vec) -> None:
    """Write sixteen lanes from -128 to 127 as bytes, rounded to nearest: byte ``which`` of each of sixteen fours."""
    for i, x in enumerate(v):
        ctypes.c_uint8.from_address(address + 4 * i + which).value = round(x) & 255 if math.isfinite(x) else 0


@kernel
def store_key(block: int, slot: int, record: int, k: int, head_dim: int) -> None:
    """Quantize a key and put it into its block.

    scale[g] = the least power of two with which no |k| rounds to more than 127, q = round(k / scale)

    Shapes: k float32 (head_dim,); record (16 + 80 pairs,) bytes, where the quantized key is left; block (2, pairs,
    1088) bytes; slot < BLOCK.
    """
    quantize_key(record, k, head_dim)
    pairs, o = (head_dim + PAIR - 1) // PAIR, slot % OUTPUTS
    for p in range(pairs):
        pair, source = block + (slot // OUTPUTS * pairs + p) * KEY_PAIR, record + START + p * RECORD
        for g in range(2):
            scale = source + PAIR + 4 * g
            put_i32(scale, get_i32(scale) + (BIAS << EXPONENT))
            put_f16(pair + 2 * (OUTPUTS * g + o), get_f32(scale))
            at = pair + KEY_HEADER + g * KEY_GROUP + 4 * o
            for q in range(GROUP // 4):  # four inputs lie side by side; the stored numbers are 128 more
                put_i32(at + 64 * q, get_i32(source + GROUP * g + 4 * q) ^ FOUR_SIGNS)


@kernel
def store_value(block: int, slot: int, v: int, head_dim: int, width: int, start: float) -> None:
    """Quantize a value and put it into its block.

    scale = max |v| / 127, q = round(v / scale)

    Shapes: v float32 (head_dim,); block (value_bytes,); slot < BLOCK. What is behind head_dim becomes zero. start is 0,
    or NaN where the key that belongs to this value is no number: the scale is none then.
    """
    zero, most, total = splat(0.0), splat(0.0), splat(0.0)
    for i in range(0, width, LANES):
        x = load_up_to(v + 4 * i, head_dim - i)
        most, total = maximum(most, maximum(x, zero - x)), total + (x - x)
    largest = max_lanes(most) + sum_lanes(total)  # what is no number makes the sum none
    inverse = splat(LARGEST / largest if largest > SMALLEST else 0.0)
    put_f32(block + BLOCK * width + 4 * slot, largest * (1.0 / LARGEST) + start)
    for i in range(0, width, LANES):
        x = load_up_to(v + 4 * i, head_dim - i)
        put_bytes(block + 4 * (slot // 4 * width + i), slot % 4, x * inverse)


@kernel
def store_position(
    keys: int, values: int, page: int, slot: int, record: int, k: int, v: int, head_dim: int, width: int
) -> None:
    """Put the key and the value of a position and head into their block, quantized.

    Shapes: as in ``store_key`` and ``store_value``; keys (blocks, kv_heads, key_bytes) and values (blocks, kv_heads,
    value_bytes), of which page counts the head.
    """
    key_step = BLOCK // OUTPUTS * ((head_dim + PAIR - 1) // PAIR) * KEY_PAIR
    store_key(keys + page * key_step, slot, record, k, head_dim)
    store_value(values + page * (BLOCK * width + 4 * BLOCK), slot, v, head_dim, width, get_f32(record))
