"""How quantized numbers lie in memory: the layout that packing, unpacking and the integer tiles share.

Weights, a block of 16 outputs at a time, along it a pair of groups (2 x 32 inputs) at a time, so that one row of
activations meets a matrix in the order of memory. A pair holds, in whole lines of memory:

    float16 scales (2, 16), then float16 minima (2, 16) where the format has them, then for each group
    int4: (4, 16, 4) bytes; byte j of output o in quarter q holds inputs 8 q + j (low) and 8 q + 4 + j (high nibble)
    int8: (8, 16, 4) bytes; byte j of output o in eighth q holds input 4 q + j

Weight = scale x (stored - offset), or scale x stored + minimum. A scale is never zero: a group of zeros has some other.

Activations, a row at a time: float32 from which its sums start, 0 or, where the row holds what is no number, NaN; then
for each pair of groups a record: int8 (64,), int32 exponents (2,), then for each group what the weights' offset adds up
to: int32 -offset x (sum of the int8), or float32 scale x (sum of the int8) to multiply minima with. Their scales are
powers of two, 2^e as e << 23, so that the product of two scales is a sum of integers, which leaves the units that
multiply to the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROUP: Final = 32  # numbers that share a scale
PAIR: Final = 2 * GROUP
BLOCK: Final = 16  # outputs side by side
RECORD: Final = PAIR + 16  # bytes of a pair of activations
START: Final = 16  # bytes before the first record of a row
EXPONENT: Final = 23  # bits below the exponent of a float32


@dataclass(frozen=True, slots=True)
class Format:
    """A way to store weights.

    Attributes:
        name: What users call it.
        bits: Of a weight, without its share of a scale.
        offset: Stored number of a weight that is zero; with minima there is none.
        minima: Whether a group has a minimum besides its scale.
    """

    name: str
    bits: int
    offset: int
    minima: bool = False

    @property
    def header_bytes(self) -> int:
        """Scales and minima of a pair."""
        return (2 if self.minima else 1) * 2 * BLOCK * 2

    @property
    def group_bytes(self) -> int:
        """Numbers of one group of a block."""
        return GROUP * BLOCK * self.bits // 8

    @property
    def pair_bytes(self) -> int:
        """All of a pair of a block."""
        return self.header_bytes + 2 * self.group_bytes


FORMATS: Final = {
    f.name: f for f in (Format("int8", 8, 128), Format("int4", 4, 8), Format("int4_zero_point", 4, 0, minima=True))
}
