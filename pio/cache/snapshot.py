"""What is kept of a sequence beside its blocks, as it was at one length."""

from __future__ import annotations

from dataclasses import dataclass

from pio.tensor import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A sequence's states of all layers behind its first ``length`` tokens; they fit into any slot of such a cache.

    Attributes:
        length: Tokens that the sequence had seen.
        layers: How many layers have states; none where blocks are all that is kept.
        shapes: Of the states of a layer.
        states: float32, one state behind the other; None without layers.
    """

    length: int
    layers: int = 0
    shapes: tuple[Shape, ...] = ()
    states: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the states."""
        return 0 if self.states is None else self.states.nbytes
