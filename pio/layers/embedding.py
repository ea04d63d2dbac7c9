"""Token embedding."""

from __future__ import annotations

from pio import ops
from pio.layers.source import Source
from pio.tensor import Tensor


class Embedding:
    """A row of the table for each token, as float32."""

    __slots__ = ("threads", "weight")

    def __init__(self, source: Source, rows: int, width: int) -> None:
        self.weight = source.take("weight", rows, width)  # (vocab, hidden)
        self.threads = source.threads

    def __call__(self, tokens: Tensor, out: Tensor) -> Tensor:
        """Look tokens up.

        Shapes: tokens int32 (T,), out float32 (T, hidden).
        """
        return ops.gather(self.weight, tokens, out=out, threads=self.threads)
