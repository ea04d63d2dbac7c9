"""Gated feed-forward block."""

from __future__ import annotations

from pio import ops
from pio.layers.linear import Linear, together
from pio.layers.source import Source
from pio.layers.workspace import Activations
from pio.tensor import Tensor


class SwiGLU:
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, source: Source, hidden: int, intermediate: int) -> None:
        self.gate_proj = Linear(source / "gate_proj", intermediate, hidden)
        self.up_proj = Linear(source / "up_proj", intermediate, hidden)
        self.down_proj = Linear(source / "down_proj", hidden, intermediate)
        self.width = intermediate

    def __call__(self, x: Tensor, residual: Tensor, a: Activations) -> None:
        """Add the block's output to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        gate, up = a.feed(self.width)  # (T, intermediate)
        together(x, (self.gate_proj, self.up_proj), (gate, up))
        ops.swiglu(gate, up, out=gate)
        self.down_proj(gate, residual, add=True)
