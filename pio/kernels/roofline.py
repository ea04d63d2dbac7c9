"""What a machine can do at best: bytes read and multiply-adds done a second, the roof over every other kernel."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _amx as amx
from pio.kernels import _llvm as ll
from pio.kernels._jit import kernel
from pio.kernels._quarters import ARM, joined, most_products, pieces
from pio.kernels.parallel import parallel_kernel
from pio.kernels.quantized_tiles import DOT, DOTS, I8X64
from pio.kernels.simd import (
    LANES,
    float32,
    fma,
    int64,
    load_f32,
    primitive,
    put_f32,
    put_i64,
    splat,
    sum_lanes,
)
from pio.kernels.sizes import CHAINS, LANE_PRODUCTS, PAIRS
from pio.kernels.tiles import PAIR_PRODUCTS

TILES = 2  # of bytes on either side: four products of two tiles, so that none waits for the one before
UNROLL = 8  # streams of sums, so that no addition waits for the one before


@kernel
def read_range(x: int, first: int, last: int) -> float:
    """Sum the elements first <= i < last, sixteen times UNROLL at a time; the rest of a division is left out.

    Shapes: x float32 (n,). Sums in float32 by 128 lanes.
    """
    zero = splat(0.0)
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    step = UNROLL * LANES
    for i in range(first, last - step + 1, step):
        at = x + 4 * i
        a, b = a + load_f32(at), b + load_f32(at + 4 * LANES)
        c, d = c + load_f32(at + 8 * LANES), d + load_f32(at + 12 * LANES)
        e, f = e + load_f32(at + 16 * LANES), f + load_f32(at + 20 * LANES)
        g, h = g + load_f32(at + 24 * LANES), h + load_f32(at + 28 * LANES)
    return sum_lanes(((a + b) + (c + d)) + ((e + f) + (g + h)))


@parallel_kernel
def read_all(sums: int, x: int, n: int, part: int, parts: int) -> None:
    """Read a buffer once, split over threads; the sums are there so that no read can be left out.

    sums[p] = sum of x[i] over the part's own elements, whole steps of 128 of them

    Shapes: sums float32 (parts,); x float32 (n,).
    """
    first, last = part * n // parts, (part + 1) * n // parts
    put_f32(sums + 4 * part, read_range(x, first, last))


@kernel
def fma_range(rounds: int, start: float, x: float, y: float) -> float:
    """Run CHAINS independent chains of multiply-adds in registers, and sum what they end with.

    chain[j] = start + j, then rounds times chain[j] = chain[j] * x + y, in each of sixteen lanes

    Shapes: none. Sums in float32.
    """
    v, w = splat(x), splat(y)
    a, b, c = splat(start), splat(start + 1.0), splat(start + 2.0)
    d, e, f = splat(start + 3.0), splat(start + 4.0), splat(start + 5.0)
    if CHAINS == 6:
        for _ in range(rounds):
            a, b, c = fma(a, v, w), fma(b, v, w), fma(c, v, w)
            d, e, f = fma(d, v, w), fma(e, v, w), fma(f, v, w)
        return sum_lanes(((a + b) + (c + d)) + (e + f))
    g, h, i = splat(start + 6.0), splat(start + 7.0), splat(start + 8.0)
    j, k, m = splat(start + 9.0), splat(start + 10.0), splat(start + 11.0)
    for _ in range(rounds):
        a, b, c = fma(a, v, w), fma(b, v, w), fma(c, v, w)
        d, e, f = fma(d, v, w), fma(e, v, w), fma(f, v, w)
        g, h, i = fma(g, v, w), fma(h, v, w), fma(i, v, w)
        j, k, m = fma(j, v, w), fma(k, v, w), fma(m, v, w)
    return sum_lanes((((a + b) + (c + d)) + (e + f)) + (((g + h) + (i + j)) + (k + m)))


@parallel_kernel
def fma_all(sums: int, rounds: int, x: float, y: float, part: int, parts: int) -> None:
    """Run ``fma_range`` in every thread.

    sums[p] = fma_range(rounds, p, x, y)

    Shapes: sums float32 (parts,).
    """
    put_f32(sums + 4 * part, fma_range(rounds, float(part), x, y))


def _products(b: Any, total: Any, w: Any, x: Any) -> Any:
    if DOT not in ARM:
        return DOTS[DOT](b, total, w, x, 4)
    quarters = zip(*(pieces(b, v) for v in (total, w, x)), strict=True)
    return joined(b, [most_products(b, DOT, *quarter) for quarter in quarters])


def _emit_dots(b: Any, rounds: Any, start: Any) -> Any:
    """Each round meets other bytes, so that no product can be taken out of the loop."""
    sums = [cgutils.alloca_once_value(b, ir.Constant(ll.I32X16, [0] * LANES)) for _ in range(CHAINS)]
    byte = b.trunc(start, ll.I8)
    undef = ir.Constant(I8X64, ir.Undefined)
    one = b.insert_element(undef, byte, ir.Constant(ll.I32, 0))
    x = cgutils.alloca_once_value(b, b.shuffle_vector(one, undef, ir.Constant(ir.VectorType(ll.I32, 64), [0] * 64)))
    with cgutils.for_range(b, rounds, intp=ll.I64):
        now = b.load(x)
        for chain, total in enumerate(sums):
            b.store(_products(b, b.load(total), ir.Constant(I8X64, [chain + 1] * 64), now), total)
        b.store(b.add(now, ir.Constant(I8X64, [1] * 64)), x)
    whole = b.load(sums[0])
    for total in sums[1:]:
        whole = b.add(whole, b.load(total))
    return b.sext(ll.fold(b, whole, b.add), ll.I64)


@primitive(int64, int64, int64, emit=_emit_dots)
def dot_range(rounds: int, start: int) -> int:
    """Run CHAINS independent chains of integer dot products in registers, and sum what they end with, in 32 bits.

    chain[j] += LANE_PRODUCTS * (j + 1) * x in each of sixteen lanes, x = start, start + 1, ... as signed bytes
    """
    steps = sum((start + i + 128) % 256 - 128 for i in range(rounds))
    total = LANES * LANE_PRODUCTS * steps * sum(range(1, CHAINS + 1))
    return (total + (1 << 31)) % (1 << 32) - (1 << 31)


@parallel_kernel
def dot_all(sums: int, rounds: int, start: int, part: int, parts: int) -> None:
    """Run ``dot_range`` in every thread: bytes times bytes, added to 32-bit numbers.

    sums[p] = dot_range(rounds, start + p)

    Shapes: sums int64 (parts,).
    """
    put_i64(sums + 8 * part, dot_range(rounds, start + part))


def _emit_tiles(b: Any, rounds: Any, start: Any) -> Any:
    """Registers of sums come first, then those of bytes: in each all bytes are alike."""
    sums, left, right = range(TILES * TILES), range(4, 4 + TILES), range(4 + TILES, 4 + 2 * TILES)
    amx.configure(b, dict.fromkeys(range(8), (amx.ROWS, amx.WIDTH)))
    line, none = cgutils.alloca_once(b, I8X64), ll.i64_const(0)
    at = b.ptrtoint(line, ll.I64)
    for i in range(TILES):
        for register, byte in ((left[i], b.add(start, ll.i64_const(i))), (right[i], ll.i64_const(i + 1))):
            first = b.insert_element(ir.Constant(I8X64, ir.Undefined), b.trunc(byte, ll.I8), ir.Constant(ll.I32, 0))
            lanes = ir.Constant(ir.VectorType(ll.I32, 64), [0] * 64)
            b.store(b.shuffle_vector(first, ir.Constant(I8X64, ir.Undefined), lanes), line)
            amx.load(b, register, at, none)
    for register in sums:
        amx.clear(b, register)
    with cgutils.for_range(b, rounds, intp=ll.I64):
        for register in sums:
            amx.multiply(b, register, left[register // TILES], right[register % TILES])
    whole = ir.Constant(ll.I32X16, [0] * LANES)
    memory = cgutils.alloca_once(b, ll.I32X16, size=ll.i64_const(amx.ROWS))
    for register in sums:
        amx.store(b, register, b.ptrtoint(memory, ll.I64), ll.i64_const(amx.WIDTH))
        for r in range(amx.ROWS):
            whole = b.add(whole, ll.load(b, ll.at(b, b.ptrtoint(memory, ll.I64), (amx.WIDTH, r)), ll.I32X16, 4))
    amx.release(b)
    return b.sext(ll.fold(b, whole, b.add), ll.I64)


@primitive(int64, int64, int64, emit=_emit_tiles)
def tile_range(rounds: int, start: int) -> int:
    """Add up products of tiles of bytes in registers of AMX, and sum what they end with, in 32 bits.

    sums[i, j] += 64 * (start + i) * (j + 1) in each of 16 x 16 lanes, start + i as signed bytes
    """
    left = sum((start + i + 128) % 256 - 128 for i in range(TILES))
    total = rounds * amx.ROWS * LANES * amx.WIDTH * left * sum(range(1, TILES + 1))
    return (total + (1 << 31)) % (1 << 32) - (1 << 31)


@parallel_kernel
def tile_all(sums: int, rounds: int, start: int, part: int, parts: int) -> None:
    """Run ``tile_range`` in every thread: tiles of bytes times tiles of bytes, added to 32-bit numbers.

    sums[p] = tile_range(rounds, start + p)

    Shapes: sums int64 (parts,).
    """
    put_i64(sums + 8 * part, tile_range(rounds, start + part))


def _emit_pairs(b: Any, rounds: Any, x: Any) -> Any:
    """The upper half of a float32 is a bfloat16."""
    sums = [cgutils.alloca_once_value(b, ll.constant(0.0)) for _ in range(CHAINS)]
    half = b.lshr(b.bitcast(x, ll.I32), ir.Constant(ll.I32, 16))
    pair = ll.splat(b, b.or_(half, b.shl(half, ir.Constant(ll.I32, 16))))
    twos = ir.Constant(ll.I32X16, [0x40004000] * LANES)
    with cgutils.for_range(b, rounds, intp=ll.I64):
        for total in sums:
            b.store(PAIR_PRODUCTS[PAIRS](b, b.load(total), pair, twos), total)
    whole = b.load(sums[0])
    for total in sums[1:]:
        whole = b.fadd(whole, b.load(total))
    return ll.fold(b, whole, b.fadd)


@primitive(float32, int64, float32, emit=_emit_pairs)
def pair_range(rounds: int, x: float) -> float:
    """Run CHAINS independent chains of bfloat16 products in registers, and sum what they end with.

    chain[j] += x * 2 + x * 2 in each of sixteen lanes; x is a bfloat16
    """
    return float(LANES * CHAINS * 4 * rounds * x)


@parallel_kernel
def pair_all(sums: int, rounds: int, x: float, part: int, parts: int) -> None:
    """Run ``pair_range`` in every thread: bfloat16 times bfloat16, added to float32.

    sums[p] = pair_range(rounds, x + p)

    Shapes: sums float32 (parts,).
    """
    put_f32(sums + 4 * part, pair_range(rounds, x + float(part)))
