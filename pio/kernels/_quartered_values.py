"""Sums of values weighted by probabilities on ARM, a quarter of sixteen numbers after the other: see ``_quarters``.

Probabilities are from 0 to 127: they are signed bytes too, as values are.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import FORMATS, PAIR
from pio.kernels._quarters import (
    F32X4,
    FEW,
    I8X16,
    QUARTERS,
    ZEROS,
    Quarter,
    behind,
    lane,
    multiply_add,
    pieces,
    read,
    shuffled,
)
from pio.kernels.sizes import BLOCK as POSITIONS
from pio.kernels.sizes import CHANCE, KEY_PAIR

EIGHTS: Final = POSITIONS // 8
# Of a builder, the first quarter and an eighth of the positions: four positions of each number, and the next four.
Values = Callable[[Any, int, int], tuple[Any, Any]]


def emit_values(rows: int, dot: str, b: Any, acc: Any, p: Any, v: Any, width: Any) -> None:
    """What ``quantized_tiles.values_tile`` does."""
    weigher = _Weigher(rows, dot, 4 if rows <= FEW else 1)
    chances = weigher.before(b, p)
    with cgutils.for_range_slice(b, ll.i64_const(0), width, ll.i64_const(ll.LANES), ll.I64) as (d, _):

        def values(b: Any, first: int, eight: int) -> tuple[Any, Any]:
            fours = (ll.pointer(b, ll.at(b, v, (d, 4), (width, 4 * (2 * eight + i))), ll.I8) for i in range(2))
            low, high = (read(b, four, 16 * first, weigher.values_type) for four in fours)
            return low, high

        places = [ll.at(b, acc, (width, 4 * r), (d, 4)) for r in range(rows)]
        weigher.add(b, chances or weigher.look(b, p), places, values)


def emit_latents(rows: int, dot: str, b: Any, acc: Any, p: Any, v: Any, pairs: Any, half: Any) -> None:
    """What ``quantized_latent.latents_tile`` does. A vector of four positions' four numbers is turned around alone."""
    weigher = _Weigher(rows, dot, 1)
    chances, width = weigher.before(b, p), b.mul(pairs, ll.i64_const(PAIR))
    with cgutils.for_range(b, b.mul(pairs, ll.i64_const(PAIR // ll.LANES)), intp=ll.I64) as loop:
        pair, sixteen = b.lshr(loop.index, ll.i64_const(2)), b.and_(loop.index, ll.i64_const(3))
        at = ll.at(b, v, (pair, KEY_PAIR), (sixteen, ll.LANES * OUTPUTS), (FORMATS["int8"].header_bytes, 1))
        halves = [ll.pointer(b, place, ll.I8) for place in (at, b.add(at, half))]

        def values(b: Any, first: int, eight: int) -> tuple[Any, Any]:
            offsets = (4 * OUTPUTS * first + OUTPUTS * (eight % 2 * 2 + i) for i in range(2))
            low, high = (_turned(b, read(b, halves[eight // 2], offset, I8X16)) for offset in offsets)
            return low, high

        places = [ll.at(b, acc, (width, 4 * r), (loop.index, 4 * ll.LANES)) for r in range(rows)]
        weigher.add(b, chances or weigher.look(b, p), places, values)


def _turned(b: Any, raw: Any) -> Any:
    signed = b.xor(raw, ir.Constant(I8X16, [128] * 16))
    return shuffled(b, signed, signed, *(4 * j + i for i in range(4) for j in range(4)))


class _Weigher:
    """What both do for sixteen numbers.

    Args:
        rows: Of the tile.
        dot: How it multiplies.
        step: Quarters at once.
    """

    def __init__(self, rows: int, dot: str, step: int) -> None:
        self._quarter, self._step = Quarter(rows, dot), step
        self.values_type = ir.VectorType(ll.I8, 16 * step)

    def look(self, b: Any, p: Any) -> tuple[Any, list[Any]]:
        """Read all probabilities, as ``Quarter.inputs`` has them, and their scales."""
        rows = [ll.pointer(b, ll.at(b, p, (CHANCE, r)), ll.I8) for r in range(self._quarter.rows)]
        return self._quarter.inputs(b, rows), [lane(b, read(b, row, POSITIONS, F32X4, 4), 0) for row in rows]

    def before(self, b: Any, p: Any) -> tuple[Any, list[Any]] | None:
        """Do so before the loop, where they stay in registers: those that matrices take, or are to be read in it.

        A dot product takes a quarter of a vector, and LLVM would make registers of all quarters.
        """
        return self.look(b, p) if self._quarter.matrices else None

    def add(self, b: Any, chances: tuple[Any, list[Any]], acc: list[Any], values: Values) -> None:
        """Add sixteen numbers to those at addresses, by row."""
        (inputs, scales), places = chances, [ll.pointer(b, row, ll.I8) for row in acc]
        for first in range(0, QUARTERS, self._step):
            sums = [[ZEROS] * len(acc)] * self._step
            for eight in range(EIGHTS):
                cut = [pieces(b, v, self._step) for v in values(b, first, eight)]
                sums = [
                    self._quarter.add_products(b, total, eight, two, inputs)
                    for total, two in zip(sums, zip(*cut, strict=True), strict=True)
                ]
            for i, found in enumerate(sums):
                for total, scale, row in zip(self._quarter.by_row(b, found), scales, places, strict=True):
                    place = b.bitcast(behind(b, row, 16 * (first + i)), ir.PointerType(F32X4))
                    old = read(b, place, 0, F32X4, 4)
                    b.store(multiply_add(b, b.sitofp(total, F32X4), scale, old), place).align = 4
