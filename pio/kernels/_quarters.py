"""Integer products on ARM, where a vector has four lanes: a quarter of a block's outputs for all rows, then the next.

So a vector of weights is read once for all rows, whose sums and inputs are in registers together. Four bytes times
four, added to a lane, are one instruction (``sdot``, ``usdot``), which takes its inputs from any quarter of a vector.
With i8mm, two outputs of two rows times eight inputs are one too (``smmla``, ``usmmla``): twice as much, but it wants
eight inputs side by side, for which two vectors of weights are zipped into two others. That pays where several rows
share them. Instructions for a pair of groups (int8, int4, int4 with minima), and for sixteen numbers of a block of
values, as ``tools/assembly.py`` counts them on a Neoverse V2:

    rows   dot products             matrices
    1       151   197   217   78    -
    2       270   308   337  137     294   332   379  141
    4       548   572   621  263     512   536   605  239
    8      1173  1209  1306  517    1018  1043  1149  418

Processors without dot products multiply eight bytes to as many 16-bit numbers, which are added in pairs: of bytes from
-128 to 127 times such from -127 to 127 two fit, of weights of four bits eight.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from llvmlite import ir

from pio.kernels import _llvm as ll

ARM: Final = ("i8mm", "sdot", "neon")  # the ways to multiply, of ``_processor.DOT``
QUARTERS: Final = 4
LANES: Final = 4
FEW: Final = 2  # rows for which whole vectors of weights are met by dot products
I8X16, I32X4, F32X4 = (ir.VectorType(t, n) for t, n in ((ll.I8, 16), (ll.I32, LANES), (ll.F32, LANES)))
I8X8, I16X8, I64X2 = (ir.VectorType(t, n) for t, n in ((ll.I8, 8), (ll.I16, 8), (ll.I64, 2)))
ZEROS: Final = ir.Constant(I32X4, [0] * LANES)


def behind(b: Any, place: Any, nbytes: int) -> Any:
    """A pointer so many bytes behind another."""
    return b.gep(b.bitcast(place, ir.PointerType(ll.I8)), [ll.i64_const(nbytes)], source_etype=ll.I8)


def read(b: Any, place: Any, nbytes: int, ty: Any, align: int = 1) -> Any:
    """What lies so many bytes behind a pointer."""
    value = b.load(b.bitcast(behind(b, place, nbytes), ir.PointerType(ty)), typ=ty)
    value.align = align
    return value


def shuffled(b: Any, x: Any, y: Any, *lanes: int) -> Any:
    """Those lanes of two vectors, the second one's behind the first one's."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(ll.I32, len(lanes)), lanes))


def lane(b: Any, vector: Any, which: int) -> Any:
    """A lane, four times."""
    return shuffled(b, vector, ir.Constant(vector.type, ir.Undefined), *[which] * LANES)


def pieces(b: Any, vector: Any, count: int = QUARTERS) -> list[Any]:
    """A vector cut into equal ones."""
    n, undef = vector.type.count // count, ir.Constant(vector.type, ir.Undefined)
    return [shuffled(b, vector, undef, *range(n * i, n * i + n)) for i in range(count)]


def joined(b: Any, parts: Sequence[Any]) -> Any:
    """Equal vectors as one, two or four of them."""
    while len(parts) > 1:
        n = 2 * parts[0].type.count
        parts = [shuffled(b, x, y, *range(n)) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def multiply_add(b: Any, x: Any, y: Any, z: Any) -> Any:
    """The products of four lanes, plus the third, rounded once."""
    return b.call(ll.function(b, "llvm.fmuladd.v4f32", F32X4, [F32X4] * 3), [x, y, z])


def _zipped(b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return shuffled(b, x, y, 0, 4, 1, 5), shuffled(b, x, y, 2, 6, 3, 7)


def _call(b: Any, name: str, result: Any, *arguments: Any) -> Any:
    called = ll.function(b, f"llvm.aarch64.neon.{name}", result, [a.type for a in arguments])
    return b.call(called, arguments)


def _halves(b: Any, w: Any, x: Any) -> list[Any]:
    """The products of sixteen bytes, as two vectors of 16-bit numbers."""
    return [_call(b, "smull.v8i16", I16X8, *half) for half in zip(pieces(b, w, 2), pieces(b, x, 2), strict=True)]


def _add_fours(b: Any, total: Any, products: Sequence[Any]) -> Any:
    """Add four of sixteen 16-bit products to each lane."""
    return b.add(total, _call(b, "saddlp.v4i32.v8i16", I32X4, _call(b, "addp.v8i16", I16X8, *products)))


@dataclass(frozen=True, slots=True)
class Quarter:
    """What a tile has of four outputs: as many vectors as it has rows.

    Attributes:
        rows: Of the tile.
        dot: How it multiplies, one of ``ARM``.
        unsigned: Whether weights are unsigned bytes, as only i8mm takes them; inputs are signed.
        small: Whether weights are from 0 to 15.
    """

    rows: int
    dot: str
    unsigned: bool = False
    small: bool = False

    @property
    def matrices(self) -> bool:
        """Whether two vectors hold two rows, each of them two outputs: (o0 r0, o0 r1, o1 r0, o1 r1). Else one a row."""
        return self.dot == "i8mm" and self.rows > FEW and self.rows % 2 == 0

    def inputs(self, b: Any, places: Sequence[Any]) -> list[list[Any]]:
        """Thirty-two bytes of each row, as ``add_products`` takes them."""
        halves = [[read(b, place, 16 * i, I8X16) for i in range(2)] for place in places]
        if not self.matrices:
            return halves
        longs = [[b.bitcast(half, I64X2) for half in row] for row in halves]
        return [
            [b.bitcast(shuffled(b, x, y, i, i + 2), I8X16) for x, y in zip(*two, strict=True) for i in range(2)]
            for two in zip(longs[::2], longs[1::2], strict=True)
        ]

    def add_products(self, b: Any, sums: list[Any], eight: int, weights: tuple[Any, Any], inputs: Any) -> list[Any]:
        """Add the products of eight inputs.

        Args:
            b: The builder.
            sums: int32, the four outputs of all rows.
            eight: Which of the thirty-two inputs, divided by eight.
            weights: Two vectors: four bytes of each output, the next four.
            inputs: What ``inputs`` has returned.
        """
        if self.matrices:
            both = [b.bitcast(v, I8X16) for v in _zipped(b, *(b.bitcast(w, I32X4) for w in weights))]
            name = f"{'us' if self.unsigned else 's'}mmla.v4i32.v16i8"
            return [_call(b, name, I32X4, s, both[i % 2], inputs[i // 2][eight]) for i, s in enumerate(sums)]
        found: list[Any] = []
        for total, row in zip(sums, inputs, strict=True):
            sixteen, first = b.bitcast(row[eight // 2], I32X4), eight % 2 * 2
            fours = [b.bitcast(lane(b, sixteen, first + i), I8X16) for i in range(2)]
            found.append(self._dot(b, total, [*zip(weights, fours, strict=True)]))
        return found

    def _dot(self, b: Any, total: Any, factors: list[tuple[Any, Any]]) -> Any:
        """Add two products of four bytes to each lane."""
        if self.dot != "neon":
            for w, x in factors:
                total = _call(b, f"{'us' if self.unsigned else 's'}dot.v4i32.v16i8", I32X4, total, w, x)
            return total
        products = [_halves(b, w, x) for w, x in factors]
        if self.small:
            products = [[b.add(x, y) for x, y in zip(*products, strict=True)]]
        for two in products:
            total = _add_fours(b, total, two)
        return total

    def of_rows(self, b: Any, numbers: Sequence[Any], which: int) -> list[Any]:
        """A lane of each row's vector, where that row's sums lie."""
        if not self.matrices:
            return [lane(b, row, which) for row in numbers]
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        spread = [shuffled(b, *two, *[which, which + LANES] * 2) for two in pairs]
        return [spread[i // 2] for i in range(self.rows)]

    def of_outputs(self, b: Any, four: Any) -> list[Any]:
        """A number of each output, where that output's sums lie."""
        return [*_zipped(b, four, four)] * (self.rows // 2) if self.matrices else [four] * self.rows

    def by_row(self, b: Any, sums: Sequence[Any]) -> list[Any]:
        """The four outputs of each row."""
        if not self.matrices:
            return [*sums]
        pairs = zip(sums[::2], sums[1::2], strict=True)
        return [shuffled(b, *two, i, i + 2, i + 4, i + 6) for two in pairs for i in range(2)]


def most_products(b: Any, dot: str, total: Any, w: Any, x: Any) -> Any:
    """Add to four lanes as many products of signed bytes as there are at once: four a lane, eight of matrices."""
    if dot == "i8mm":
        return _call(b, "smmla.v4i32.v16i8", I32X4, total, w, x)
    if dot == "sdot":
        return _call(b, "sdot.v4i32.v16i8", I32X4, total, w, x)
    return _add_fours(b, total, _halves(b, w, x))
