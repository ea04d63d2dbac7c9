"""An expert that all tokens go to, each as far as its own gate lets it, beside those that the router chooses."""

from __future__ import annotations

from pio import ops
from pio.dtypes import int32
from pio.layers.linear import Linear, together
from pio.layers.mlp import gate_and_up
from pio.layers.moe import SparseMoE
from pio.layers.source import Source
from pio.tensor import Tensor


class SharedViews:
    """What the shared expert of T tokens computes in.

    Attributes:
        down: (T, hidden).
        ones: Ones, (T, 1).
        logits: Of the gate, (T, 1).
        weights: How far the gate lets each token, (T, 1).
        places: int32 (T, 1): each token's row is its own.
    """

    __slots__ = ("down", "logits", "ones", "places", "weights")

    def __init__(self, made: dict[str, Tensor]) -> None:
        self.down, self.ones, self.logits, self.weights, self.places = (
            made[name] for name in ("down", "ones", "logits", "weights", "places")
        )


def _fill(made: dict[str, Tensor]) -> None:
    """Write what never changes."""
    made["ones"].fill_(1.0)
    places = made["places"]
    places.copy_(Tensor.from_list([[t] for t in range(len(places))], int32))


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
        column = (1,)
        shapes = {"down": (hidden,), "ones": column, "logits": column, "weights": column, "places": column}
        self._rooms = source.workspace.rooms("shared expert", shapes, SharedViews, kinds={"places": int32}, begin=_fill)

    def __call__(self, x: Tensor, residual: Tensor) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        self.routed(x, residual)
        m, (gate, up) = self._rooms(x.shape[0]), self._gate_and_up(x.shape[0])
        together(x, (self.gate_proj, self.up_proj), (gate, up))  # (T, inner)
        ops.swiglu(gate, up, out=gate)
        self.down_proj(gate, m.down)  # (T, hidden)
        ops.linear(x, self.shared_expert_gate, out=m.logits)  # (T, 1)
        ops.sigmoid_gate(m.ones, m.logits, out=m.weights)
        ops.add_choices(residual, m.down, m.places, m.weights)
