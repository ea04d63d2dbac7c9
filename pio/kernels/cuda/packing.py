"""Weights into quantized blocks and rows of them back, as ``pio.kernels.packing``; ``_packing`` has a group of one."""

from __future__ import annotations

from pio.kernels._formats import BLOCK, FORMATS, GROUP, PAIR
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function
from pio.kernels.cuda._packing import largest_of, pack_group
from pio.kernels.cuda._quads import store_four_of
from pio.kernels.cuda.gather import index_at
from pio.kernels.cuda.ptx import (
    WARP,
    block_index,
    block_size,
    fma,
    get_f32,
    grid_size,
    load,
    put_f32,
    single,
    thread_index,
)
from pio.kernels.cuda.ptx_lanes import any_thread, float_bits
from pio.kernels.cuda.ptx_scalars import get_word, quotient, single_of
from pio.kernels.sizes import LARGEST_FLOAT16

THREADS = 256  # of a block that packs
WARPS = THREADS // WARP
BAD = 4 * 2 * GROUP  # where scratch says which row float16 cannot hold

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


@device_function
def report_too_large(scratch: int, w: int, rows: int, k: int) -> None:
    """Write the first row, counted from 1, with a number that float16 cannot hold; one block looks at all of them.

    Shapes: w float32 (rows, k); scratch float32 (80,).
    """
    for r in range(rows):
        bad, i = 0, thread_index()
        while i < k:
            if float_bits(get_f32(w + 4 * (r * k + i))) & 0x7FFFFFFF > float_bits(single(LARGEST_FLOAT16)):
                bad = 1
            i += THREADS
        if any_thread(bad) != 0:
            if thread_index() == 0:
                put_f32(scratch + BAD, single(r + 1))
            return


@cuda_kernel_per_dtype(block=THREADS)
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
            pair = out + pair_bytes * ((first + r // BLOCK) * pairs + at // PAIR)
            pack_group(pair, at // GROUP % 2, r % BLOCK, a, b)
        unit += grid_size() * WARPS
    if block_index() == 0:
        report_too_large(scratch, w, rows, k)
