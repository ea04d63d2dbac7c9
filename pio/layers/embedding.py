"""Token embedding."""

from __future__ import annotations

from pio import ops
from pio.layers.source import Source
from pio.ops.quantized import PackedWeight
from pio.tensor import Tensor


class Embedding:
    """A row of the table for each token, as float32.

    Attributes:
        weight: (vocab, hidden); floats as stored, or packed.
        name: Of the table in the checkpoint.
    """

    __slots__ = ("name", "weight")

    def __init__(self, source: Source, rows: int, width: int) -> None:
        self.weight = source.matrix("weight", rows, width, "table")  # (vocab, hidden)
        self.name = source.full_name("weight")

    def __call__(self, tokens: Tensor, out: Tensor, *, trusted: bool = False) -> Tensor:
        """Look tokens up; ``trusted`` ones are known to be in the vocabulary (``ops.gather``).

        Shapes: tokens int32 (T,), out float32 (T, hidden).
        """
        if isinstance(self.weight, PackedWeight):
            return ops.unpack(self.weight, tokens, out=out, trusted=trusted)
        return ops.gather(self.weight, tokens, out=out, trusted=trusted)
