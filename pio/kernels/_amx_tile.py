"""Tiles of AMX over quantized weights: the integer sums of sixteen rows and sixteen outputs at a time.

Weights of a few pairs are unpacked first, to a panel that all rows pass by: signed bytes, so that their offset is in no
sum, and scales and minima as float32. Sums of products come from the registers of AMX by way of memory, where they are
scaled and added to float32 sums while the next ones are made. What is added to the sum of an output, and in which
order, is what ``quantized_tiles`` adds, hence the same bits.

To be multiplied takes a tile 16 cycles, to be stored 16 more, in which the processor begins nothing else, and to be
scaled 17 to 24; with what loads cost that makes about 50, where AVX-512 VNNI takes 95. What is loaded is used as often
as it can be: activations of a pair for all blocks of the panel.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _amx as amx
from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK, EXPONENT, FORMATS, GROUP, PAIR, RECORD, Format
from pio.kernels._jit import PerDtype
from pio.kernels.quantized_tiles import I8X64, unpacked
from pio.kernels.simd import fma, int64, load_f16_lanes, load_f32, primitive, splat, store_f32, void

Primitive = Callable[..., None]

HEIGHT: Final = 16  # rows of a tile
BLOCKS: Final = 4  # of outputs that rows meet together
LINE: Final = 4 * BLOCK * BLOCKS  # bytes of a row of sums
FOURS: Final = GROUP // 4  # rows of a tile of weights
TILE: Final = 4 * BLOCK * HEIGHT  # bytes of a tile of integer sums

# Registers: of sums, two for a pair of each of two blocks; of activations and of weights, one for each group of a pair.
_SUMS, _LEFT, _RIGHT = ((0, 1), (2, 3)), (4, 5), (6, 7)
_SIZES: Final = {
    **{register: (HEIGHT, 4 * BLOCK) for two in _SUMS for register in two},
    **{register: (HEIGHT, GROUP) for register in _LEFT},
    **{register: (FOURS, amx.WIDTH) for register in _RIGHT},
}


_NUMBERS: Final = ir.VectorType(ll.I32, 4)  # behind the bytes of a record


def group_bytes(form: Format) -> int:
    """Return the bytes of an unpacked group of a block: weights, scales, and minima where there are some."""
    return GROUP * BLOCK + (2 if form.minima else 1) * 4 * BLOCK


@primitive(void, emit=lambda b: amx.configure(b, _SIZES))
def begin_tiles() -> None:
    """Have the registers ready for ``matrix_tile``."""


@primitive(void, emit=amx.release)
def end_tiles() -> None:
    """Give the registers up."""


def _unpack_panel(form: Format) -> Primitive:
    def emit(b: Any, panel: Any, w: Any, pairs: Any, blocks: Any, step: Any) -> None:
        unit = 2 * group_bytes(form)
        even = b.and_(b.add(blocks, ll.i64_const(1)), ll.i64_const(-2))
        with cgutils.for_range(b, even, intp=ll.I64) as loop:
            last = b.sub(blocks, ll.i64_const(1))
            block = b.select(b.icmp_signed("<", loop.index, blocks), loop.index, last)
            with cgutils.for_range(b, pairs, intp=ll.I64) as inner:
                source = ll.at(b, w, (step, block), (inner.index, form.pair_bytes))
                target = ll.at(b, panel, (b.add(b.mul(inner.index, even), loop.index), unit))
                for g in range(2):
                    _unpack_group(b, form, g, source, ll.at(b, target, (g * group_bytes(form), 1)))

    @primitive(void, *[int64] * 5, emit=emit)
    def unpack(panel: int, w: int, pairs: int, blocks: int, step: int) -> None:
        even = blocks + blocks % 2
        for block in range(even):
            for p in range(pairs):
                source, unit = w + min(block, blocks - 1) * step + p * form.pair_bytes, p * even + block
                for g in range(2):
                    _unpack_group_python(form, g, source, panel + (2 * unit + g) * group_bytes(form))

    return unpack


unpack_panel: PerDtype[Primitive] = PerDtype(lambda name: _unpack_panel(FORMATS[name]))
"""Unpack some pairs of some blocks, by format: ``(panel, w, pairs, blocks, step)``.

Addresses of the panel, 64-byte aligned, and of the first pair of the first block; step is the bytes from block to
block. A panel holds for each pair, block and group int8 (8, 16, 4), float32 scales (16,) and, where the format has
them, minima (16,). Where blocks are an odd number, the last one is there twice.
"""


def _unpack_group(b: Any, form: Format, g: int, source: Any, target: Any) -> None:
    offset = ir.Constant(I8X64, [form.offset] * 64)
    vectors: list[Any] = []
    for q in range(form.group_bytes // 64):
        at = form.header_bytes + g * form.group_bytes + 64 * q
        vectors += unpacked(b, ll.at(b, source, (at, 1)), form.bits)
    for i, vector in enumerate(vectors):
        signed = b.sub(vector, offset) if form.offset else vector
        ll.store(b, ll.at(b, target, (64 * i, 1)), signed, 64)
    for i in range(2 if form.minima else 1):
        floats = ll.load_as(b, ll.at(b, source, (2 * BLOCK * (2 * i + g), 1)), "float16")
        ll.store(b, ll.at(b, target, (GROUP * BLOCK + 4 * BLOCK * i, 1)), floats, 64)


def _unpack_group_python(form: Format, g: int, source: int, target: int) -> None:
    w = (ctypes.c_uint8 * form.group_bytes).from_address(source + form.header_bytes + g * form.group_bytes)
    stored = list(w)
    if form.bits == 4:
        stored = [byte >> shift & 15 for q in range(0, len(w), 64) for shift in (0, 4) for byte in w[q : q + 64]]
    (ctypes.c_int8 * len(stored)).from_address(target)[:] = [s - form.offset for s in stored]
    for i in range(2 if form.minima else 1):
        store_f32(target + GROUP * BLOCK + 4 * BLOCK * i, load_f16_lanes(source + 2 * BLOCK * (2 * i + g)))


def _matrix_tile(form: Format) -> Primitive:
    def emit(b: Any, sums: Any, x: Any, panel: Any, pairs: Any, blocks: Any, stride: Any) -> None:
        _Tile(b, form, sums, stride).emit(x, panel, pairs, blocks)

    @primitive(void, *[int64] * 6, emit=emit)
    def tile(sums: int, x: int, panel: int, pairs: int, blocks: int, stride: int) -> None:
        even = blocks + blocks % 2
        for r in range(HEIGHT):
            for block in range(even):
                place = sums + LINE * r + 4 * BLOCK * block
                total = load_f32(place)
                for p in range(pairs):
                    for g in range(2):
                        group = panel + (2 * (p * even + block) + g) * group_bytes(form)
                        total = _add_group_python(form, g, x + r * stride + p * RECORD, group, total)
                store_f32(place, total)

    return tile


matrix_tile: PerDtype[Primitive] = PerDtype(lambda name: _matrix_tile(FORMATS[name]))
"""The tile ``sums[r, o] += sum_k x[r, k] * w[o, k]`` of HEIGHT rows, by format: ``(sums, x, panel, pairs, blocks,
stride)``.

Addresses of float32 sums, LINE bytes a row, of the rows' first records and of what ``unpack_panel`` has left; pairs of
groups, at least one; up to BLOCKS blocks, of which an odd last one is computed twice; and the bytes from row to row of
x. Sums and panel are aligned to 64 bytes; behind the panel two more units can be read. Between ``begin_tiles`` and
``end_tiles`` alone.
"""


def _add_group_python(form: Format, g: int, record: int, group: int, total: Any) -> Any:
    """One group of one row and block, lane by lane."""
    x = (ctypes.c_int8 * GROUP).from_address(record + GROUP * g)
    w = (ctypes.c_int8 * (GROUP * BLOCK)).from_address(group)
    dots = [sum(x[i] * w[64 * (i // 4) + 4 * o + i % 4] for i in range(GROUP)) for o in range(BLOCK)]
    exponent = ctypes.c_int32.from_address(record + PAIR + 4 * g).value >> EXPONENT
    factor = load_f32(group + GROUP * BLOCK) * splat(math.ldexp(1.0, exponent))
    total = fma(type(total)(map(float, dots)), factor, total)
    if form.minima:
        shift = ctypes.c_float.from_address(record + PAIR + 8 + 4 * g).value
        total = fma(load_f32(group + GROUP * BLOCK + 4 * BLOCK), splat(shift), total)
    return total


class _Tile:
    """Units, which are a pair of a block, one after the other: multiplied, then stored, then scaled.

    The registers work in the order of the program: two products come between a product and its store, or all would
    wait for its 52 cycles. So while a unit is scaled, the next one is stored and the one behind it multiplied.
    """

    def __init__(self, b: Any, form: Format, sums: Any, stride: Any) -> None:
        self._b, self._form, self._sums, self._stride = b, form, sums, stride
        self._unit = 2 * group_bytes(form)
        memory = cgutils.alloca_once(b, ll.I32X16, size=ll.i64_const(4 * HEIGHT))
        memory.align = 64
        self._integers = b.ptrtoint(memory, ll.I64)
        self._numbers = b.ptrtoint(cgutils.alloca_once(b, _NUMBERS, size=ll.i64_const(HEIGHT)), ll.I64)

    def emit(self, x: Any, panel: Any, pairs: Any, blocks: Any) -> None:
        """Walk the panel: of each pair two blocks at a time."""
        b, one, two = self._b, ll.i64_const(1), ll.i64_const(2)
        couples = b.lshr(b.add(blocks, one), one)
        record, unit = cgutils.alloca_once_value(b, x), cgutils.alloca_once_value(b, panel)
        self._load(x)
        self._begin(panel)
        with cgutils.for_range(b, pairs, intp=ll.I64) as outer:
            here, left = b.load(record), b.sub(pairs, outer.index)
            self._ask(here, left, pairs)
            self._copy_numbers(here)
            following = b.select(b.icmp_signed(">", left, one), b.add(here, ll.i64_const(RECORD)), here)
            with cgutils.for_range(b, couples, intp=ll.I64) as inner:
                with b.if_then(b.icmp_signed("==", b.add(inner.index, one), couples)):
                    self._load(following)
                at = b.load(unit)
                for odd in range(2):
                    ahead = ll.at(b, at, (self._unit, odd + 2))
                    for g in range(2):
                        self._multiply(ahead, odd, g)
                        self._store(1 - odd, g)
                    place = ll.at(b, self._sums, (inner.index, 2 * 4 * BLOCK), (4 * BLOCK * odd, 1))
                    self._scale(ll.at(b, at, (self._unit, odd)), place, odd)
                b.store(ll.at(b, at, (self._unit, two)), unit)
            b.store(following, record)

    def _begin(self, panel: Any) -> None:
        """Have the first two units multiplied, and the first one stored."""
        for g in range(2):
            self._multiply(panel, 0, g)
        for g in range(2):
            self._multiply(ll.at(self._b, panel, (self._unit, 1)), 1, g)
            self._store(0, g)

    def _load(self, record: Any) -> None:
        """Read the activations of a pair."""
        for g, register in enumerate(_LEFT):
            amx.load(self._b, register, ll.at(self._b, record, (GROUP * g, 1)), self._stride)

    def _ask(self, record: Any, left: Any, pairs: Any) -> None:
        """Ask for activations of the pair after the next one, or of the first ones of the next rows."""
        b = self._b
        rows = ll.at(b, record, (self._stride, HEIGHT))
        back = b.mul(b.sub(ll.i64_const(2), pairs), ll.i64_const(RECORD))
        ahead = b.add(record, ll.i64_const(2 * RECORD))
        ahead = b.select(b.icmp_signed(">", left, ll.i64_const(2)), ahead, b.add(rows, back))
        for r in range(HEIGHT):
            for line in range(0, RECORD, ll.LINE):
                ll.prefetch(b, ll.at(b, ahead, (self._stride, r), (line, 1)), level=1)

    def _copy_numbers(self, record: Any) -> None:
        """Put each row's exponents and what follows them side by side: as operands they need plain addresses."""
        b, nbytes = self._b, RECORD - PAIR
        for r in range(HEIGHT):
            numbers = ll.load(b, ll.at(b, record, (self._stride, r), (PAIR, 1)), _NUMBERS, 1)
            ll.store(b, ll.at(b, self._numbers, (nbytes, r)), numbers, 4)

    def _multiply(self, unit: Any, odd: int, g: int) -> None:
        b, sums = self._b, _SUMS[odd][g]
        amx.load(b, _RIGHT[g], ll.at(b, unit, (group_bytes(self._form) * g, 1)), ll.i64_const(amx.WIDTH))
        amx.clear(b, sums)
        amx.multiply(b, sums, _LEFT[g], _RIGHT[g])

    def _store(self, odd: int, g: int) -> None:
        amx.store(self._b, _SUMS[odd][g], self._place(odd, g, 0), ll.i64_const(4 * BLOCK))

    def _place(self, odd: int, g: int, r: int) -> Any:
        return ll.at(self._b, self._integers, (TILE * (2 * odd + g) + 4 * BLOCK * r, 1))

    def _scale(self, unit: Any, sums: Any, odd: int) -> None:
        """Add a unit's integer sums, times the scales of weights and inputs, and minima times the inputs' sums."""
        b, form, floats = self._b, self._form, 4 * BLOCK
        groups = [ll.at(b, unit, (group_bytes(form) * g + GROUP * BLOCK, 1)) for g in range(2)]
        scales = [ll.load(b, at, ll.I32X16, 64) for at in groups]
        least = [ll.load(b, ll.at(b, at, (floats, 1)), ll.F32X16, 64) for at in groups if form.minima]
        for r in range(HEIGHT):
            row, place = ll.at(b, self._numbers, (RECORD - PAIR, r)), ll.at(b, sums, (LINE * r, 1))
            value = ll.load(b, place, ll.F32X16, 64)
            for g in range(2):
                exponent = ll.splat(b, ll.load(b, ll.at(b, row, (4 * g, 1)), ll.I32, 4))
                integers = ll.load(b, self._place(odd, g, r), ll.I32X16, 64)
                factor = b.bitcast(b.add(scales[g], exponent), ll.F32X16)
                value = ll.fma(b, b.sitofp(integers, ll.F32X16), factor, value)
                if form.minima:
                    shift = ll.splat(b, ll.load(b, ll.at(b, row, (8 + 4 * g, 1)), ll.F32, 4))
                    value = ll.fma(b, least[g], shift, value)
            ll.store(b, place, value, 64)
