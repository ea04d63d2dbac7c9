"""Gated feed-forward block."""

from __future__ import annotations

from pio import ops
from pio.layers.linear import Linear, together
from pio.layers.source import Source
from pio.layers.workspace import Rooms
from pio.tensor import Tensor


def gate_and_up(source: Source, width: int) -> Rooms[tuple[Tensor, Tensor]]:
    """Ask for what a gated block of that width computes in: gate and up, both float32 (T, width)."""
    return source.workspace.rooms("feed forward", {"gate": (width,), "up": (width,)}, _gate_and_up)


def _gate_and_up(made: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return made["gate"], made["up"]


class SwiGLU:
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020, arXiv:2002.05202).

    Attributes:
        width: Of gate and up.
    """

    def __init__(self, source: Source, hidden: int, intermediate: int) -> None:
        self.gate_proj = Linear(source / "gate_proj", intermediate, hidden)
        self.up_proj = Linear(source / "up_proj", intermediate, hidden)
        self.down_proj = Linear(source / "down_proj", hidden, intermediate)
        self.width = intermediate
        self._rooms = gate_and_up(source, self.width)

    def __call__(self, x: Tensor, residual: Tensor) -> None:
        """Add the block's output to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        gate, up = self._rooms(x.shape[0])  # (T, intermediate)
        together(x, (self.gate_proj, self.up_proj), (gate, up))
        ops.swiglu(gate, up, out=gate)
        self.down_proj(gate, residual, add=True)
