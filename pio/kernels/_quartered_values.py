"""Sums of values weighted by probabilities on ARM, a quarter of sixteen numbers after the other: see ``_quarters``.

Probabilities are from 0 to 127: they are signed bytes too, as values are.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable, Sequence
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
from pio.kernels.sizes import CHANCE, KEY_PAIR, SPAN_CHANCE

EIGHTS: Final = POSITIONS // 8
# Of a builder, the first quarter and an eighth of the positions: four positions of each number, and the next four.
Values = Callable[[Any, int, int], tuple[Any, Any]]


def emit_values(rows: int, dot: str, b: Any, acc: Any, p: Any, v: Any, width: Any) -> None:
    """What ``values_tiles.values_tile`` does."""
    weigher = _Weigher(rows, dot, 4 if rows <= FEW else 1)
    before = weigher.before(b, p)
    with cgutils.for_range_slice(b, ll.i64_const(0), width, ll.i64_const(ll.LANES), ll.I64) as (d, _):
        places = [ll.at(b, acc, (width, 4 * r), (d, 4)) for r in range(rows)]
        weigher.add(b, before or weigher.look(b, p), places, _values(weigher, v, width, d))


def emit_span(rows: int, dot: str, b: Any, acc: Any, p: Any, addresses: Any, blocks: Any, width: Any) -> None:
    """What ``values_tiles.span_tile`` does."""
    weigher = _Weigher(rows, dot, 4 if rows <= FEW else 1, SPAN_CHANCE)
    scales, left = weigher.scales(b, p), weigher.scales(b, p, 4)
    quarters = range(0, QUARTERS, weigher.step)
    totals = [weigher.zeros(b) for _ in quarters]
    with cgutils.for_range_slice(b, ll.i64_const(0), width, ll.i64_const(ll.LANES), ll.I64) as (d, _):
        places = [ll.pointer(b, ll.at(b, acc, (width, 4 * r), (d, 4)), ll.I8) for r in range(rows)]
        for total in totals:
            weigher.put(b, total, [[ZEROS] * rows] * weigher.step)
        with cgutils.for_range(b, blocks, intp=ll.I64) as loop:
            v = ll.load(b, ll.at(b, addresses, (loop.index, 8)), ll.I64, 8)
            inputs = weigher.inputs(b, ll.at(b, p, (loop.index, POSITIONS)))
            for first, total in zip(quarters, totals, strict=True):
                sums = weigher.sums(b, weigher.get(b, total), inputs, first, _values(weigher, v, width, d))
                weigher.put(b, total, sums)
        for first, total in zip(quarters, totals, strict=True):
            weigher.finish(b, first, weigher.get(b, total), scales, places, left)


def _values(weigher: _Weigher, v: Any, width: Any, d: Any) -> Values:
    """How the values of a block are read, sixteen numbers from d on."""

    def values(b: Any, first: int, eight: int) -> tuple[Any, Any]:
        fours = (ll.pointer(b, ll.at(b, v, (d, 4), (width, 4 * (2 * eight + i))), ll.I8) for i in range(2))
        low, high = (read(b, four, 16 * first, weigher.values_type) for four in fours)
        return low, high

    return values


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
    """What all of them do for sixteen numbers.

    Args:
        rows: Of the tile.
        dot: How it multiplies.
        step: Quarters at once.
        stride: Bytes of a row's probabilities; the last sixteen begin with its scale.
    """

    def __init__(self, rows: int, dot: str, step: int, stride: int = CHANCE) -> None:
        self._quarter, self.step, self._stride = Quarter(rows, dot), step, stride
        self.values_type = ir.VectorType(ll.I8, 16 * step)

    def inputs(self, b: Any, p: Any) -> Any:
        """Read a block's probabilities of all rows, as ``Quarter.inputs`` has them."""
        return self._quarter.inputs(b, self._rows(b, p))

    def scales(self, b: Any, p: Any, behind: int = 0) -> list[Any]:
        """Read the scales of all rows, or what is so many bytes behind them."""
        return [lane(b, read(b, row, self._stride - 16, F32X4, 4), behind // 4) for row in self._rows(b, p)]

    def look(self, b: Any, p: Any) -> tuple[Any, list[Any]]:
        """Read both."""
        return self.inputs(b, p), self.scales(b, p)

    def before(self, b: Any, p: Any) -> tuple[Any, list[Any]] | None:
        """Do so before the loop, where they stay in registers: those that matrices take, or are to be read in it.

        A dot product takes a quarter of a vector, and LLVM would make registers of all quarters.
        """
        return self.look(b, p) if self._quarter.matrices else None

    def zeros(self, b: Any) -> list[list[Any]]:
        """Places of sums that start at zero, by quarter."""
        return [[cgutils.alloca_once_value(b, ZEROS) for _ in range(self._quarter.rows)] for _ in range(self.step)]

    def get(self, b: Any, places: list[list[Any]]) -> list[list[Any]]:
        """Read sums from their places."""
        return [[b.load(place) for place in row] for row in places]

    def put(self, b: Any, places: list[list[Any]], sums: list[list[Any]]) -> None:
        """Write sums to their places."""
        for row, found in zip(places, sums, strict=True):
            for place, total in zip(row, found, strict=True):
                b.store(total, place)

    def add(self, b: Any, chances: tuple[Any, list[Any]], acc: list[Any], values: Values) -> None:
        """Add sixteen numbers to those at addresses, by row."""
        (inputs, scales), places = chances, [ll.pointer(b, row, ll.I8) for row in acc]
        for first in range(0, QUARTERS, self.step):
            zeros = [[ZEROS] * len(acc)] * self.step
            self.finish(b, first, self.sums(b, zeros, inputs, first, values), scales, places)

    def sums(self, b: Any, sums: list[list[Any]], inputs: Any, first: int, values: Values) -> list[list[Any]]:
        """Add a block's products to int32 sums, by quarter."""
        for eight in range(EIGHTS):
            cut = [pieces(b, v, self.step) for v in values(b, first, eight)]
            sums = [
                self._quarter.add_products(b, total, eight, two, inputs)
                for total, two in zip(sums, zip(*cut, strict=True), strict=True)
            ]
        return sums

    def finish(
        self,
        b: Any,
        first: int,
        sums: list[list[Any]],
        scales: list[Any],
        places: list[Any],
        left: Sequence[Any] = (),
    ) -> None:
        """Add scaled sums to what is left of the numbers at pointers, by row."""
        for i, found in enumerate(sums):
            for r, total in enumerate(self._quarter.by_row(b, found)):
                place = b.bitcast(behind(b, places[r], 16 * (first + i)), ir.PointerType(F32X4))
                old = read(b, place, 0, F32X4, 4)
                if left:
                    old = b.fmul(old, left[r])
                b.store(multiply_add(b, b.sitofp(total, F32X4), scales[r], old), place).align = 4

    def _rows(self, b: Any, p: Any) -> list[Any]:
        return [ll.pointer(b, ll.at(b, p, (self._stride, r)), ll.I8) for r in range(self._quarter.rows)]
