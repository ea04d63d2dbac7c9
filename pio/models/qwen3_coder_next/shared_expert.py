"""An expert that all tokens go to, each as far as its own gate lets it, beside those that the router chooses."""

from __future__ import annotations

from pio import ops
from pio.layers.linear import Linear, together
from pio.layers.mlp import gate_and_up
from pio.layers.moe import SparseMoE
from pio.layers.source import Source
from pio.tensor import Tensor


class SharedViews:
    """What the shared expert of T tokens computes in.

    Attributes:
        down: (T, hidden).
        scratch: Of the gate, (T,).
    """

    __slots__ = ("down", "scratch")

    def __init__(self, made: dict[str, Tensor]) -> None:
        self.down, self.scratch = made["down"], made["gate"].reshape(-1)


class SharedMoE:
    """``sum_j weight_j * expert_j(x) + sigmoid(gate(x)) * shared(x)``.

    Args:
        source: Weights of the block.
        routed: The experts that the router chooses.
        hidden: Width of the residual stream.
        inner: Width of the shared expert.
    """

    def __init__(self, source: Source, routed: SparseMoE, *, hidden: int, inner: int) -> None:
        shared = source / "shared_expert"
        self.routed = routed
        self.gate_proj = Linear(shared / "gate_proj", inner, hidden)
        self.up_proj = Linear(shared / "up_proj", inner, hidden)
        self.down_proj = Linear(shared / "down_proj", hidden, inner)
        self.shared_expert_gate = (source / "shared_expert_gate").take("weight", 1, hidden)  # as stored: one row
        self._gate_and_up = gate_and_up(source, inner)
        self._rooms = source.workspace.rooms("shared expert", {"down": (hidden,), "gate": (1,)}, SharedViews)

    def __call__(self, x: Tensor, residual: Tensor) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        self.routed(x, residual)
        m, (gate, up) = self._rooms(x.shape[0]), self._gate_and_up(x.shape[0])
        together(x, (self.gate_proj, self.up_proj), (gate, up))  # (T, inner)
        ops.swiglu(gate, up, out=gate)
        self.down_proj(gate, m.down)  # (T, hidden)
        ops.add_gated(residual, m.down, x, self.shared_expert_gate, scratch=m.scratch)
