"""Mixture of experts: a router sends each token to a few of many feed-forward blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pio import ops
from pio.dtypes import int32, uint8
from pio.errors import CheckpointError, TensorError
from pio.layers.source import Source
from pio.layers.workspace import Rooms
from pio.ops.expert_weights import ExpertWeights
from pio.ops.experts import most_row_bytes
from pio.ops.quantized import PackedWeight
from pio.ops.routing import Choices, route_scratch_shape
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


class RouterViews:
    """What choosing experts for T tokens computes in.

    Attributes:
        logits: (T, experts).
        choices: Which experts tokens go to.
        scratch: Of the router.
    """

    __slots__ = ("choices", "logits", "scratch")

    def __init__(self, made: dict[str, Tensor]) -> None:
        self.logits, self.scratch = made["logits"], made["scratch"]
        order = made["order"].reshape(-1)
        self.choices = Choices(made["ids"], made["weights"], order, made["places"], made["starts"])


class ExpertViews:
    """What the experts of T tokens compute in.

    Attributes:
        gate: (T k, inner).
        up: (T k, inner).
        down: (T k, hidden).
        rows: Scratch for rows in the form in which matrices meet them, uint8.
    """

    __slots__ = ("down", "gate", "rows", "up")

    def __init__(self, made: dict[str, Tensor]) -> None:
        rows = made["gate"].shape[0] * made["gate"].shape[1]
        self.gate, self.up, self.down = (
            made[name].reshape(rows, made[name].shape[2]) for name in ("gate", "up", "down")
        )
        self.rows = made["rows"].reshape(-1)


def _router_rooms(source: Source, routing: Routing) -> Rooms[RouterViews]:
    """Ask for what a router computes in, and for the choices."""
    k, experts = routing.k, routing.experts
    shapes = {"logits": (experts,), "ids": (k,), "weights": (k,), "order": (k,), "places": (k,)}
    fixed = {"starts": (experts + 1,), "scratch": route_scratch_shape(experts, routing.groups, source.runs_on)}
    kinds = {"ids": int32, "order": int32, "places": int32, "starts": int32}
    return source.workspace.rooms("router", shapes, RouterViews, fixed=fixed, kinds=kinds)


def _expert_rooms(source: Source, routing: Routing, hidden: int, inner: int) -> Rooms[ExpertViews]:
    """Ask for what experts compute in."""
    k = routing.k
    # a token's own row is needed beside those of its choices
    row_bytes = max(most_row_bytes(hidden) * (1 + k), most_row_bytes(inner) * k)
    shapes = {"gate": (k, inner), "up": (k, inner), "down": (k, hidden), "rows": (row_bytes,)}
    return source.workspace.rooms("experts", shapes, ExpertViews, kinds={"rows": uint8})


class SparseMoE:
    """``sum_j weight_j * expert_j(x)`` over a token's experts, each a SwiGLU block.

    Shazeer et al. 2017, arXiv:1701.06538.

    Args:
        source: Weights of the block.
        routing: How tokens choose experts.
        hidden: Width of the residual stream.
        inner: Width of an expert.
    """

    def __init__(self, source: Source, routing: Routing, *, hidden: int, inner: int) -> None:
        gate = source / "gate"
        self.router = gate.take("weight", routing.experts, hidden)  # (experts, hidden), as stored: it only chooses
        bias = "e_score_correction_bias"
        self.bias = gate.take_float32(bias, routing.experts) if routing.logistic else None  # (experts,)
        make = partial(Experts, routing=routing, hidden=hidden, inner=inner)
        self.experts = source.placement.experts(source.experts, make)
        self.routing = routing
        self._rooms = _router_rooms(source, routing)

    def __call__(self, x: Tensor, residual: Tensor) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        a, r = self._rooms(x.shape[0]), self.routing
        ops.linear(x, self.router, out=a.logits)  # (T, experts)
        ops.route(
            a.logits,
            out=a.choices,
            bias=self.bias,
            groups=r.groups,
            kept_groups=r.kept_groups,
            logistic=r.logistic,
            renormalise=r.renormalise,
            scaling=r.scaling,
            scratch=a.scratch,
        )
        self.experts(x, a.choices, residual)


class Experts:
    """The blocks that tokens choose between, on the device of their weights.

    Args:
        source: Their weights.
        routing: How tokens choose them.
        hidden: Width of the residual stream.
        inner: Width of an expert.

    Attributes:
        sizes: Width of the residual stream, experts of a token, and all experts.
    """

    def __init__(self, source: Source, routing: Routing, *, hidden: int, inner: int) -> None:
        self.gate_proj = _experts(source, "gate_proj", routing.experts, inner, hidden)
        self.up_proj = _experts(source, "up_proj", routing.experts, inner, hidden)
        self.down_proj = _experts(source, "down_proj", routing.experts, hidden, inner)
        self.sizes = hidden, routing.k, routing.experts
        self._rooms = _expert_rooms(source, routing, hidden, inner)
        self._rounds = source.workspace.rounds_inputs

    def weights_of(self, expert: int) -> list[Tensor]:
        """Return the memory of an expert's weights."""
        found = (each.matrices[expert] for each in (self.gate_proj, self.up_proj, self.down_proj))
        return [matrix.data if isinstance(matrix, PackedWeight) else matrix for matrix in found]

    def __call__(self, x: Tensor, choices: Choices, residual: Tensor) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        a, rounds = self._rooms(x.shape[0]), self._rounds
        both, gate = (self.gate_proj, self.up_proj), a.gate
        ops.expert_linears(x, choices, both, (gate, a.up), rounds=rounds, scratch=a.rows)
        ops.swiglu(gate, a.up, out=gate)  # (T k, inner)
        one, outs = (self.down_proj,), (a.down,)
        ops.expert_linears(gate, choices, one, outs, grouped=True, rounds=rounds, scratch=a.rows)
        ops.add_choices(residual, a.down, choices.places, choices.weights)


def _experts(source: Source, name: str, count: int, rows: int, columns: int) -> ExpertWeights:
    """Take one projection of all experts.

    Raises:
        CheckpointError: Some are stored in another form than the others.
    """
    taken = [source / e / name for e in range(count)]
    matrices = [each.matrix("weight", rows, columns) for each in taken]
    source.inventory.experts.update(each.full_name("weight") for each in taken)
    try:
        return ExpertWeights(matrices)
    except TensorError as error:
        raise CheckpointError(
            f"{source.prefix}: the experts' {name} are stored in several forms ({error}); the files do not belong "
            "together, download the model again"
        ) from error
