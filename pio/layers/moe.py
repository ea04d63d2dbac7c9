"""Mixture of experts: a router sends each token to a few of many feed-forward blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pio import ops
from pio.device import Device
from pio.dtypes import int32, uint8
from pio.errors import CheckpointError, TensorError
from pio.layers.room import Views, make_room
from pio.layers.source import Source
from pio.layers.workspace import Activations
from pio.memory.budget import MemoryBudget
from pio.ops.experts import Choices, ExpertWeights, most_row_bytes, route_scratch_shape
from pio.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Routing:
    """How tokens choose experts.

    Attributes:
        experts: How many there are.
        k: How many a token goes to.
        logistic: Scores are each expert's own probability, and a stored bias corrects the choice; else softmax.
        renormalise: Weights of the chosen sum to 1, before scaling.
        groups: Equal groups of experts.
        kept_groups: From how many groups a token chooses.
        scaling: Factor of the weights.
    """

    experts: int
    k: int
    logistic: bool = False
    renormalise: bool = True
    groups: int = 1
    kept_groups: int = 1
    scaling: float = 1.0


class ExpertActivations:
    """Memory for what experts work on: made once for the largest batch, shared by all layers.

    Args:
        tokens: Most tokens of a batch.
        routing: How tokens choose.
        hidden: Width of the residual stream.
        inner: Width of an expert.
        device: Where it lies.
        budget: Counts the memory.
    """

    def __init__(
        self, tokens: int, routing: Routing, hidden: int, inner: int, device: Device, budget: MemoryBudget | None = None
    ) -> None:
        k, rows, experts = routing.k, tokens * routing.k, routing.experts
        # a token's own row is needed beside those of its choices
        lines = max(most_row_bytes(hidden) * (tokens + rows), most_row_bytes(inner) * rows)
        shapes = {
            "logits": (tokens, experts),
            "gate": (rows, inner),
            "up": (rows, inner),
            "down": (rows, hidden),
            "lines": (lines,),
            "ids": (tokens, k),
            "weights": (tokens, k),
            "order": (rows,),
            "places": (tokens, k),
            "starts": (experts + 1,),
            "scratch": route_scratch_shape(experts, routing.groups, device),
        }
        kinds = {"lines": uint8, "ids": int32, "order": int32, "places": int32, "starts": int32}
        made = make_room(
            shapes, "activations of experts (fewer with prefill_chunk)", budget, kinds=kinds, device=device
        )
        self.nbytes = made["logits"].storage.nbytes
        self._views = Views(partial(_expert_views, made, k))
        self.lines = made["lines"]
        self.scratch = made["scratch"]

    def first(self, tokens: int) -> tuple[Tensor, Choices, Tensor, Tensor, Tensor]:
        """Return logits, choices, gate, up and down for that many tokens.

        Shapes: logits (T, experts); gate, up (T k, inner); down (T k, hidden).
        """
        return self._views.first(tokens)


def _expert_views(full: dict[str, Tensor], k: int, tokens: int) -> tuple[Tensor, Choices, Tensor, Tensor, Tensor]:
    choices = Choices(full["ids"], full["weights"], full["order"], full["places"], full["starts"]).first(tokens)
    gate, up, down = (full[name][: tokens * k] for name in ("gate", "up", "down"))
    return full["logits"][:tokens], choices, gate, up, down


class SparseMoE:
    """``sum_j weight_j * expert_j(x)`` over a token's experts, each a SwiGLU block.

    Shazeer et al. 2017, arXiv:1701.06538.

    Args:
        source: Weights of the block.
        routing: How tokens choose experts.
        memory: What all layers of the model work in.
        hidden: Width of the residual stream.
        inner: Width of an expert.
    """

    def __init__(self, source: Source, routing: Routing, memory: ExpertActivations, *, hidden: int, inner: int) -> None:
        gate = source / "gate"
        self.router = gate.take("weight", routing.experts, hidden)  # (experts, hidden), as stored: it only chooses
        self.bias = gate.exact("e_score_correction_bias", routing.experts) if routing.logistic else None  # (experts,)
        experts = source / "experts"
        self.gate_proj = _experts(experts, "gate_proj", routing.experts, inner, hidden)
        self.up_proj = _experts(experts, "up_proj", routing.experts, inner, hidden)
        self.down_proj = _experts(experts, "down_proj", routing.experts, hidden, inner)
        self.routing = routing
        self._memory = memory
        self._rounds = source.records.rounds_inputs

    def __call__(self, x: Tensor, residual: Tensor, a: Activations) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        logits, choices, gate, up, down = self._memory.first(x.shape[0])
        r, lines, rounds = self.routing, self._memory.lines, self._rounds
        ops.linear(x, self.router, out=logits)  # (T, experts)
        ops.route(
            logits,
            out=choices,
            bias=self.bias,
            groups=r.groups,
            kept_groups=r.kept_groups,
            logistic=r.logistic,
            renormalise=r.renormalise,
            scaling=r.scaling,
            scratch=self._memory.scratch,
        )
        both = self.gate_proj, self.up_proj
        ops.expert_linears(x, choices, both, (gate, up), rounds=rounds, scratch=lines)
        ops.swiglu(gate, up, out=gate)  # (T k, inner)
        one, outs = (self.down_proj,), (down,)
        ops.expert_linears(gate, choices, one, outs, grouped=True, rounds=rounds, scratch=lines)
        ops.add_choices(residual, down, choices.places, choices.weights)


def _experts(source: Source, name: str, count: int, rows: int, columns: int) -> ExpertWeights:
    """Take one projection of all experts.

    Raises:
        CheckpointError: Some are stored in another form than the others.
    """
    matrices = [(source / e / name).matrix("weight", rows, columns) for e in range(count)]
    try:
        return ExpertWeights(matrices)
    except TensorError as error:
        raise CheckpointError(
            f"{source.prefix}: the experts' {name} are stored in several forms ({error}); the files do not belong "
            "together, download the model again"
        ) from error
