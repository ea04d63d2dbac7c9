"""Weights into quantized blocks and back, as ``pio.kernels.packing``; rows of them as float32 are an embedding."""

from __future__ import annotations

from pio.kernels._formats import BLOCK, FORMATS, GROUP, PAIR
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._jit import cuda_kernel_per_dtype
from pio.kernels.cuda._packing import pack as pack
from pio.kernels.cuda._quads import store_four_of
from pio.kernels.cuda.gather import index_at
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    get_word,
    grid_size,
    load,
    quotient,
    single,
    single_of,
    thread_index,
)

get_f16 = load["float16"]
pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)
header_bytes = PerDtype(lambda name: FORMATS[name].header_bytes)
group_bytes = PerDtype(lambda name: FORMATS[name].group_bytes)
bits = PerDtype(lambda name: FORMATS[name].bits)
offset = PerDtype(lambda name: FORMATS[name].offset)
minima = PerDtype(lambda name: int(FORMATS[name].minima))


@cuda_kernel_per_dtype
def unpack(out: int, w: int, indices: int, rows: int, k: int, wide: int) -> None:
    """Write rows of packed weights as float32.

    out[i] = row indices[i] of w, scale * (stored - offset), or scale * stored + minimum; row i where indices is 0

    Shapes: w (blocks, pairs, bytes) as ``_formats`` lays it out; indices int32, or int64 where wide is 1, (rows,);
    out float32 (rows, k). Fours of all rows are dealt to threads: in memory they are a word, or half of the nibbles of
    one.
    """
    fours, pairs = (k + 3) // 4, (k + PAIR - 1) // PAIR
    item, step = block_index() * block_size() + thread_index(), grid_size() * block_size()
    while item < rows * fours:
        i = quotient(item, fours)
        c = 4 * (item - i * fours)
        row = i
        if indices != 0:
            row = index_at(indices, i, wide)
        o, pair = row % BLOCK, w + pair_bytes * (row // BLOCK * pairs + c // PAIR)
        g, inside = c // GROUP % 2, c % GROUP
        scale, shift = get_f16(pair + 2 * (BLOCK * g + o)), single(0.0)
        if int(minima) == 1:
            shift = get_f16(pair + 2 * (BLOCK * (2 + g) + o))
        at = pair + header_bytes + g * group_bytes + 4 * o
        if int(bits) == 8:
            word = get_word(at + 64 * (inside // 4))
        else:
            word = get_word(at + 64 * (inside // 8)) >> (4 * (inside % 8 // 4)) & 0x0F0F0F0F
        v0, v1 = single_of((word & 255) - offset), single_of((word >> 8 & 255) - offset)
        v2, v3 = single_of((word >> 16 & 255) - offset), single_of((word >> 24 & 255) - offset)
        if int(minima) == 1:
            v0, v1, v2, v3 = fma(scale, v0, shift), fma(scale, v1, shift), fma(scale, v2, shift), fma(scale, v3, shift)
        else:
            v0, v1, v2, v3 = scale * v0, scale * v1, scale * v2, scale * v3
        store_four_of(out + 4 * i * k, c, k, v0, v1, v2, v3)
        item += step
