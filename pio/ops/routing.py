"""Choosing each token's experts, and grouping tokens by them."""

from __future__ import annotations

from dataclasses import dataclass

from pio.device import Device, on_device
from pio.dtypes import DType, float32, int32
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check, check_gpu_limit, split
from pio.ops._overlap import check_same_device
from pio.ops._record import record
from pio.ops._tensors import check_writable
from pio.tensor import Tensor

kernels = launcher.module("routing")
FEW = 64  # scores and choices of a row, against copying a number


@dataclass(frozen=True, slots=True)
class Choices:
    """Which experts tokens go to, and how experts find their tokens.

    Attributes:
        ids: int32 (tokens, k), experts of each token, best first, no two of them alike.
        weights: float32 (tokens, k), what each of them counts.
        order: int32 (tokens * k,), choices (token * k + rank) sorted by expert.
        places: int32 (tokens, k), where each choice is in that order.
        starts: int32 (experts + 1,), where each expert's choices begin in it.
    """

    ids: Tensor
    weights: Tensor
    order: Tensor
    places: Tensor
    starts: Tensor

    @classmethod
    def empty(cls, tokens: int, k: int, experts: int, device: Device | None = None) -> Choices:
        """Make room for the choices of that many tokens."""
        return cls(
            Tensor.empty((tokens, k), int32, device),
            Tensor.empty((tokens, k), device=device),
            Tensor.empty((tokens * k,), int32, device),
            Tensor.empty((tokens, k), int32, device),
            Tensor.empty((experts + 1,), int32, device),
        )

    def first(self, tokens: int) -> Choices:
        """Return room for the first tokens, the same memory."""
        k = self.ids.shape[1]
        return Choices(
            self.ids[:tokens], self.weights[:tokens], self.order[: tokens * k], self.places[:tokens], self.starts
        )


def route_scratch_shape(experts: int, groups: int = 1, device: Device | None = None) -> tuple[int, int]:
    """Return the shape of ``route_scratch``, for a model that takes it from memory of its own."""
    return on_device(device).threads, experts + groups + -(-experts // sizes.MAXIMA)


def route_scratch(experts: int, groups: int = 1, device: Device | None = None) -> Tensor:
    """Return the scratch that ``route`` needs on a device, so that a model can make it once."""
    return Tensor.empty(route_scratch_shape(experts, groups, device), device=device)


def route(
    logits: Tensor,
    *,
    out: Choices,
    bias: Tensor | None = None,
    groups: int = 1,
    kept_groups: int = 1,
    logistic: bool = False,
    renormalise: bool = True,
    scaling: float = 1.0,
    scratch: Tensor | None = None,
) -> Choices:
    """Choose each token's experts, and group tokens by expert.

    Args:
        logits: float32 (tokens, experts); the scores take their place.
        out: Room for the choices of these tokens.
        bias: float32 (experts,), added to scores for the choice only.
        groups: Equal groups of experts that lie side by side.
        kept_groups: From how many groups, those whose two best experts have most, a token chooses.
        logistic: Scores are each expert's own probability; else those of all sum to 1 (softmax).
        renormalise: Divide the weights of the chosen by their sum.
        scaling: Factor of the weights.
        scratch: From ``route_scratch``.

    Returns:
        ``out``, filled. A token's choice depends on nothing but its logits; among equals the lower expert is taken.

    Raises:
        TensorError: Shapes or dtypes do not fit, the groups do not divide the experts, what is written is read-only, or
            on a GPU there are more than 2048 groups.
    """
    op = "route"
    check(op, "logits", logits, (None, None))
    check_writable(op, "logits", logits)
    tokens, experts = logits.shape
    check_choices(op, out, tokens, experts, logits, written=True)
    k = out.ids.shape[1]
    if bias is not None:
        check(op, "bias", bias, (experts,))
        check_same_device(op, "logits", logits, "bias", bias)
    if groups < 1 or experts % groups or not 1 <= kept_groups <= groups:
        raise TensorError(
            f"{op}: groups={groups} and kept_groups={kept_groups} of {experts} experts, expected groups that divide "
            "the experts and 1 to groups of them kept"
        )
    check_gpu_limit(op, "groups", groups, sizes.GPU_GROUPS, logits.device)
    if not 1 <= k <= experts // groups * kept_groups:
        raise TensorError(f"{op}: k={k} is out of range, expected 1 to {experts // groups * kept_groups} experts")
    scratch = route_scratch(experts, groups, logits.device) if scratch is None else scratch
    check(op, "scratch", scratch, (None, route_scratch_shape(experts, groups)[1]))
    check_writable(op, "scratch", scratch)
    check_same_device(op, "logits", logits, "scratch", scratch)
    if not scratch.shape[0]:
        raise TensorError(f"{op}: scratch has shape {scratch.shape}, expected a row for each thread, at least one")
    shape = record(
        experts, k, groups, kept_groups, int(logistic), int(renormalise), float(scaling), device=logits.device
    )
    at_bias = 0 if bias is None else bias.address
    here = kernels.on(logits.device)
    choose, group = here.route[""], here.group_by_expert[""]  # both, before one of them changes the logits
    where = out.ids.address, out.weights.address, logits.address, at_bias, scratch.address
    parts = min(split(FEW * logits.size, logits.device), scratch.shape[0])
    choose(*where, tokens, shape.address, parts)
    at = out.order.address, out.starts.address, out.places.address, out.ids.address
    group(*at, tokens * k, experts, 1)
    return out


def check_choices(op: str, choices: Choices, tokens: int, experts: int, x: Tensor, *, written: bool = False) -> None:
    """Raise a TensorError unless there is room for the choices of that many tokens, on the device of x."""
    check(op, "ids", choices.ids, (tokens, None), int32)
    k = choices.ids.shape[1]
    wanted: list[tuple[str, Tensor, tuple[int, ...], DType]] = [
        ("ids", choices.ids, (tokens, k), int32),
        ("weights", choices.weights, (tokens, k), float32),
        ("order", choices.order, (tokens * k,), int32),
        ("places", choices.places, (tokens, k), int32),
        ("starts", choices.starts, (experts + 1,), int32),
    ]
    for name, tensor, shape, dtype in wanted:
        check(op, name, tensor, shape, dtype)
        check_same_device(op, name, tensor, "the input", x)
        if written:
            check_writable(op, name, tensor)
