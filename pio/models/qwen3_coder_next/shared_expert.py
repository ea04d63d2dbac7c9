"""An expert that all tokens go to, each as far as its own gate lets it, beside those that the router chooses."""

from __future__ import annotations

from functools import partial

from pio import ops
from pio.device import Device
from pio.dtypes import int32
from pio.layers.linear import Linear, together
from pio.layers.moe import SparseMoE
from pio.layers.room import Views, make_room
from pio.layers.source import Source
from pio.layers.workspace import Activations
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor


class SharedActivations:
    """Memory for shared experts: made once for the largest batch, shared by all layers.

    Args:
        tokens: Most tokens of a batch.
        hidden: Width of the residual stream.
        device: Where it lies.
        budget: Counts the memory.
    """

    def __init__(self, tokens: int, hidden: int, device: Device, budget: MemoryBudget | None = None) -> None:
        column = tokens, 1
        sizes = {"down": (tokens, hidden), "ones": column, "logits": column, "weights": column, "places": column}
        what = "activations of shared experts (fewer with prefill_chunk)"
        self._full = make_room(sizes, what, budget, kinds={"places": int32}, device=device)
        self.nbytes = self._full["down"].storage.nbytes
        self._full["ones"].fill_(1.0)
        self._full["places"].copy_(Tensor.from_list([[t] for t in range(tokens)], int32).reshape(column))
        self._views = Views(partial(_first_of_each, self._full))

    def first(self, tokens: int) -> dict[str, Tensor]:
        """Return the tensors for that many tokens.

        Shapes: down (T, hidden); ones, logits, weights (T, 1); places (T, 1): each token's row is its own.
        """
        return self._views.first(tokens)


def _first_of_each(full: dict[str, Tensor], tokens: int) -> dict[str, Tensor]:
    return {name: tensor[:tokens] for name, tensor in full.items()}


class SharedMoE:
    """``sum_j weight_j * expert_j(x) + sigmoid(gate(x)) * shared(x)``.

    Args:
        source: Weights of the block.
        routed: The experts that the router chooses.
        memory: What all layers of the model work in.
        hidden: Width of the residual stream.
        inner: Width of the shared expert.
    """

    def __init__(
        self, source: Source, routed: SparseMoE, memory: SharedActivations, *, hidden: int, inner: int
    ) -> None:
        shared = source / "shared_expert"
        self.routed = routed
        self.gate_proj = Linear(shared / "gate_proj", inner, hidden)
        self.up_proj = Linear(shared / "up_proj", inner, hidden)
        self.down_proj = Linear(shared / "down_proj", hidden, inner)
        self.shared_expert_gate = (source / "shared_expert_gate").take("weight", 1, hidden)  # as stored: one row
        self.width = inner
        self._memory = memory

    def __call__(self, x: Tensor, residual: Tensor, a: Activations) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        self.routed(x, residual, a)
        m, (gate, up) = self._memory.first(x.shape[0]), a.feed(self.width)
        together(x, (self.gate_proj, self.up_proj), (gate, up))  # (T, inner)
        ops.swiglu(gate, up, out=gate)
        self.down_proj(gate, m["down"])  # (T, hidden)
        ops.linear(x, self.shared_expert_gate, out=m["logits"])  # (T, 1)
        ops.sigmoid_gate(m["ones"], m["logits"], out=m["weights"])
        ops.add_choices(residual, m["down"], m["places"], m["weights"])
