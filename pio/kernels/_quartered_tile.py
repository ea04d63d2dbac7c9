"""The tiles of ``quantized_tiles`` on ARM, a quarter of the outputs after the other: see ``_quarters``.

What is added to the float32 of an output, and in which order, is what the other tiles add.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK, GROUP, PAIR, Format
from pio.kernels._quarters import (
    F32X4,
    FEW,
    I32X4,
    LANES,
    QUARTERS,
    ZEROS,
    Quarter,
    behind,
    joined,
    multiply_add,
    pieces,
    read,
)

EIGHTS: Final = GROUP // 8
F16X4 = ir.VectorType(ll.F16, LANES)


class QuarteredTile:
    """A tile of some rows.

    Args:
        rows: How many.
        form: Of the weights.
        dot: How it multiplies.
    """

    def __init__(self, rows: int, form: Format, dot: str) -> None:
        self._quarter = Quarter(rows, dot, unsigned=dot == "i8mm", small=form.bits == 4)
        self._form, self._rows = form, rows
        self._step = 2 if rows <= FEW else 1  # quarters at once: their weights lie side by side, and are read by twos
        self._weights_type = ir.VectorType(ll.I8, 16 * self._step)

    def begin(self, b: Any, starts: Sequence[Any]) -> list[list[Any]]:
        """Places of all sums, by quarter: they hold what their rows start with."""
        undef, first = ir.Constant(F32X4, ir.Undefined), ir.Constant(ll.I32, 0)
        spread = self._quarter.of_rows(b, [b.insert_element(undef, start, first) for start in starts], 0)
        places = [[cgutils.alloca_once(b, F32X4) for _ in spread] for _ in range(QUARTERS)]
        if self._rows > FEW:
            # They fill all registers. As addresses that LLVM does not look through they stay in memory, and it spills
            # nothing else.
            memory = b.ptrtoint(cgutils.alloca_once(b, F32X4, size=ll.i64_const(QUARTERS * len(spread))), ll.I64)
            places = [
                [ll.pointer(b, ll.at(b, memory, (16, len(spread) * q + i)), F32X4) for i in range(len(spread))]
                for q in range(QUARTERS)
            ]
        for quarter in places:
            for place, value in zip(quarter, spread, strict=True):
                b.store(value, place)
        return places

    def add_group(self, b: Any, g: int, x: Sequence[Any], w: Any, totals: list[list[Any]]) -> None:
        """Add one group of a pair to the totals.

        Args:
            b: The builder.
            g: Which of the two.
            x: Addresses of the pair's records, by row.
            w: Address of the pair in a block of weights.
            totals: What ``begin`` has returned.
        """
        # pointers: of addresses in a loop LLVM makes too many induction variables
        x, w = [ll.pointer(b, row, ll.I8) for row in x], ll.pointer(b, w, ll.I8)
        inputs = self._quarter.inputs(b, [behind(b, row, GROUP * g) for row in x])
        numbers = [read(b, row, PAIR, I32X4) for row in x]  # exponents, then offsets
        for first in range(0, QUARTERS, self._step):
            sums = [self._starts(b, numbers, g)] * self._step
            for eight in range(EIGHTS):
                cut = [pieces(b, v, self._step) for v in self._weights(b, behind(b, w, 16 * first), g, eight)]
                sums = [
                    self._quarter.add_products(b, total, eight, two, inputs)
                    for total, two in zip(sums, zip(*cut, strict=True), strict=True)
                ]
            for i, found in enumerate(sums):
                self._add_scaled(b, g, numbers, w, first + i, found, totals[first + i])

    def _starts(self, b: Any, numbers: list[Any], g: int) -> list[Any]:
        """What the integer sums of a group begin with: the share of the weights' offset, where it is not in them."""
        if self._form.minima or (self._form.bits == 8 and not self._quarter.unsigned):
            return [ZEROS] * self._rows
        return self._quarter.of_rows(b, numbers, 2 + g)

    def _weights(self, b: Any, w: Any, g: int, eight: int) -> tuple[Any, Any]:
        """Two vectors of weights: four inputs of each output, and the next four."""
        at, ty = self._form.header_bytes + g * self._form.group_bytes, self._weights_type
        if self._form.bits == 4:
            raw = read(b, w, at + 64 * eight, ty)
            return b.and_(raw, ir.Constant(ty, [15] * ty.count)), b.lshr(raw, ir.Constant(ty, [4] * ty.count))
        two = [read(b, w, at + 64 * (2 * eight + i), ty) for i in range(2)]
        if not self._quarter.unsigned:
            two = [b.xor(v, ir.Constant(ty, [128] * ty.count)) for v in two]  # 128 less, as signed bytes
        return two[0], two[1]

    def _add_scaled(
        self, b: Any, g: int, numbers: list[Any], w: Any, quarter: int, sums: list[Any], totals: list[Any]
    ) -> None:
        """Add a quarter's integer sums, times the scales of weights and inputs, and minima times the inputs' sums."""
        exponents = self._quarter.of_rows(b, numbers, g)
        scales = self._quarter.of_outputs(b, b.bitcast(_halves(b, w, g, quarter), I32X4))
        values: list[Any] = []
        for total, place, scale, exponent in zip(sums, totals, scales, exponents, strict=True):
            factor = b.bitcast(b.add(scale, exponent), F32X4)
            values.append(multiply_add(b, b.sitofp(total, F32X4), factor, b.load(place, typ=F32X4)))
        if self._form.minima:
            least = self._quarter.of_outputs(b, _halves(b, w, 2 + g, quarter))
            shifts = self._quarter.of_rows(b, [b.bitcast(row, F32X4) for row in numbers], 2 + g)
            values = [multiply_add(b, m, s, value) for m, s, value in zip(least, shifts, values, strict=True)]
        for value, place in zip(values, totals, strict=True):
            b.store(value, place)

    def places(self, b: Any, totals: list[list[Any]]) -> list[Any]:
        """Places of the sixteen outputs of each row."""
        quarters = [self._quarter.by_row(b, [b.load(place, typ=F32X4) for place in quarter]) for quarter in totals]
        return [cgutils.alloca_once_value(b, joined(b, row)) for row in zip(*quarters, strict=True)]


def _halves(b: Any, w: Any, which: int, quarter: int) -> Any:
    """Four of the float16 at the beginning of a pair, as float32."""
    return b.fpext(read(b, w, 2 * BLOCK * which + 2 * LANES * quarter, F16X4, 2), F32X4)
