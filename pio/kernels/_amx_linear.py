"""Many rows of quantized activations times packed blocks of 16 outputs, by the tiles of AMX.

Rows by sixteen pass by a panel of unpacked weights: a few blocks of outputs, and of these so many pairs. Their float32
sums wait in memory for the next pairs. Rows that fill no tile, and all rows where there is no AMX, are for
``quantized_linear``; bits are the same.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

from llvmlite import ir

from pio.kernels import _atomics as atomics
from pio.kernels import _llvm as ll
from pio.kernels._amx_tile import (
    BLOCKS,
    HEIGHT,
    LINE,
    begin_tiles,
    end_tiles,
    group_bytes,
    matrix_tile,
    unpack_panel,
)
from pio.kernels._formats import BLOCK, FORMATS, RECORD, START
from pio.kernels._jit import PerDtype, kernel, kernel_per_dtype
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels.simd import get_f32, int64, load_f32, primitive, splat, store_f32
from pio.kernels.tiles import prefetch

LEAST: Final = 2 * HEIGHT  # rows that are worth unpacking weights for
DEPTH: Final = 8  # pairs of a panel
MOST: Final = 20 * HEIGHT  # rows whose sums wait: as much as the second-level cache has room for beside the rest
CACHE: Final = 1 << 20  # bytes of activations that stay in the second-level cache, which is two megabytes with AMX

PANEL: Final = 2 * (DEPTH * BLOCKS + 2) * max(map(group_bytes, FORMATS.values()))  # two units behind it are read
WORK: Final = MOST * LINE + PANEL  # bytes that a piece of work needs
# Threads that can have such memory at once; others multiply without tiles. It lies beside the code, for a thread's
# stack may be smaller; what nobody touches takes none of the machine's.
PLACES: Final = 256
TAKEN: Final = 64  # bytes before each: whether it is

_NAME: Final = "pio_amx_work"
_VECTORS: Final = ir.ArrayType(ir.VectorType(ll.I8, 64), PLACES * (TAKEN + WORK) // 64)


def _emit_places(b: Any) -> Any:
    found: Any = b.module.globals.get(_NAME)
    if found is None:
        found = ir.GlobalVariable(b.module, _VECTORS, _NAME)
        found.linkage, found.align, found.initializer = "internal", 64, ir.Constant(_VECTORS, None)
    return b.ptrtoint(found, ll.I64)


@cache
def _places_python() -> Any:
    return ctypes.create_string_buffer(PLACES * (TAKEN + WORK) + 64)


@primitive(int64, emit=_emit_places)
def places() -> int:
    """Memory that all threads share, zeros at first: PLACES times TAKEN and WORK bytes, aligned to 64."""
    return (ctypes.addressof(_places_python()) + 63) // 64 * 64


@kernel
def take_place() -> int:
    """Return WORK bytes that no other thread has, until ``leave_place``; 0 where all are taken.

    Shapes: none.
    """
    first = places()
    for i in range(PLACES):
        at = first + i * (TAKEN + WORK)
        if atomics.load(at) == 0 and atomics.replace(at, 0, 1):
            return at + TAKEN
    return 0


@kernel
def leave_place(place: int) -> None:
    """Give memory back that ``take_place`` gave.

    Shapes: place (WORK,) bytes.
    """
    atomics.store(place - TAKEN, 0)


pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)


@kernel
def start_sums(sums: int, x: int, row: int) -> None:
    """Have the sums of all outputs of a tile start from what their rows start from.

    sums[r, o] = start of x[r]

    Shapes: sums float32 (HEIGHT, 64); x (HEIGHT, row) bytes.
    """
    for r in range(HEIGHT):
        start = splat(get_f32(x + r * row))
        for o in range(0, LINE, 4 * BLOCK):
            store_f32(sums + r * LINE + o, start)


@kernel
def put_sums(y: int, sums: int, ldy: int, count: int, add: int) -> None:
    """Write the sums of up to 64 outputs of a tile, or add them to what is there.

    y[r, o] = sums[r, o] (+ y[r, o] if add)

    Shapes: sums float32 (HEIGHT, 64); y float32 (HEIGHT, count), row stride ldy.
    """
    for r in range(HEIGHT):
        for o in range(0, count, BLOCK):
            value, place = load_f32(sums + r * LINE + 4 * o), y + 4 * (r * ldy + o)
            if add != 0:
                value = value + load_up_to(place, count - o)
            store_up_to(place, value, count - o)


@kernel_per_dtype
def multiply_blocks(y: int, x: int, w: int, work: int, rows: int, count: int, pairs: int, ldy: int, add: int) -> None:
    """Compute up to 64 outputs of some rows.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add)

    Shapes: as in ``quantized_columns``; work (WORK,) bytes; rows a multiple of HEIGHT, MOST at most; n = count. The
    blocks behind these are asked for meanwhile.
    """
    row, block, blocks = START + pairs * RECORD, pair_bytes * pairs, (count + BLOCK - 1) // BLOCK
    sums, panel = work, work + MOST * LINE
    for p in range(0, pairs, DEPTH):
        deep, at_w = min(DEPTH, pairs - p), w + p * pair_bytes
        unpack_panel(panel, at_w, deep, blocks, block)
        after = at_w + (deep * pair_bytes if p + deep < pairs else BLOCKS * block - p * pair_bytes)
        share = (deep * pair_bytes * HEIGHT // rows + 63) // 64 * 64
        for r in range(0, rows, HEIGHT):
            at_sums, at_x = sums + r * LINE, x + r * row
            for i in range(blocks):
                prefetch(after + i * block + r // HEIGHT * share, share)
            if p == 0:
                start_sums(at_sums, at_x, row)
            if p + deep == pairs:
                for i in range(HEIGHT):  # where sums go, for they are many stores at once
                    prefetch(y + 4 * (r + i) * ldy, 4 * count)
            matrix_tile(at_sums, at_x + START + p * RECORD, panel, deep, blocks, row)
            if p + deep == pairs:
                put_sums(y + 4 * r * ldy, at_sums, ldy, count, add)


@kernel_per_dtype
def multiply_tiles(
    y: int, x: int, w: int, first: int, last: int, rows: int, n: int, pairs: int, ldy: int, add: int
) -> int:
    """Compute the blocks first <= b < last of as many rows as fill whole tiles and are worth it; return how many.

    y[r, c] = sum_k x[r, k] * w[c, k] (+ y[r, c] if add)

    Shapes: as in ``quantized_columns``.
    """
    tiles, row, block = rows // HEIGHT, START + pairs * RECORD, pair_bytes * pairs
    if rows < LEAST or pairs == 0 or last - first < 2:  # of one block alone half of each tile would be for nothing
        return 0
    work = take_place()
    if work == 0:
        return 0
    most = max(min(CACHE // row, MOST) // HEIGHT, 1)
    turns = (tiles + most - 1) // most  # as many rows in each
    step = (tiles + turns - 1) // turns * HEIGHT
    begin_tiles()
    for r in range(0, tiles * HEIGHT, step):
        some = min(step, tiles * HEIGHT - r)
        for c in range(first, last, BLOCKS):
            place, count = y + 4 * (r * ldy + BLOCK * c), min(n, BLOCK * last) - BLOCK * c
            multiply_blocks(place, x + r * row, w + c * block, work, some, min(count, BLOCK * BLOCKS), pairs, ldy, add)
    end_tiles()
    leave_place(work)
    return tiles * HEIGHT
