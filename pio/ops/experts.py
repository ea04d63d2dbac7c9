"""Mixtures of experts: choosing them, grouping tokens by them, their linear layers, and adding up what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pio.device import Device, on_device
from pio.dtypes import DType, bfloat16, float32, int32, int64, uint8
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.memory import step
from pio.ops._check import FLOATS, check, check_gpu_limit, split
from pio.ops._linears import Quantizing
from pio.ops._overlap import check_apart, check_outs_apart, check_same_device
from pio.ops._record import record
from pio.ops._tensors import check_writable
from pio.ops.bfloat16 import rounded_bytes
from pio.ops.quantized import WORK, PackedWeight, record_bytes
from pio.tensor import Tensor

rounding = launcher.module("bfloat16_linear")
kernels = launcher.module("experts")
quantize = launcher.module("quantize")
routing = launcher.module("routing")
FEW = 64  # scores and choices of a row, against copying a number


class ExpertWeights:
    """The matrices of all experts for one projection, each where the checkpoint has it.

    Attributes:
        matrices: One for each expert, all of one shape and form.
        shape: (n, k) of each.
        form: Name of the packed format or of the element type.
        contiguous: Whether rows lie side by side, as operations want them.
    """

    __slots__ = ("_addresses", "_last_freed", "contiguous", "form", "matrices", "shape")

    def __init__(self, matrices: Sequence[Tensor | PackedWeight]) -> None:
        """Collect matrices.

        Raises:
            TensorError: There is none, or they differ in shape or form.
        """
        if not matrices:
            raise TensorError("ExpertWeights: matrices is empty, expected one for each expert")
        forms = [(_form(matrix), matrix.shape) for matrix in matrices]
        for i, found in enumerate(forms):
            if found != forms[0]:
                raise TensorError(f"ExpertWeights: matrix {i} is {found}, expected {forms[0]} as matrix 0 is")
        self.matrices = tuple(matrices)
        for i, data in enumerate(self._data):
            check_same_device("ExpertWeights", "matrix 0", next(self._data), f"matrix {i}", data)
        self.form = forms[0][0]
        self.shape = matrices[0].shape[0], matrices[0].shape[1]
        self._last_freed = step.last_freed()  # before the addresses are read
        self._addresses = Tensor.from_list([data.address for data in self._data], int64, next(self._data).device)
        self.contiguous = self.packed or all(isinstance(m, Tensor) and m.is_contiguous for m in matrices)

    @property
    def addresses(self) -> Tensor:
        """int64 (experts,), where each matrix begins; a step that is recorded holds all of them.

        Raises:
            TensorError: The memory of one was freed.
        """
        freed = step.last_freed()
        if freed is not self._last_freed:
            for matrix in self._data:
                matrix.storage.check()
            self._last_freed = freed
        step.hold(self)
        return self._addresses

    @property
    def freed(self) -> bool:
        """Whether the memory of a matrix was given back."""
        return any(matrix.storage.freed for matrix in self._data)

    @property
    def _data(self) -> Iterator[Tensor]:
        return (m.data if isinstance(m, PackedWeight) else m for m in self.matrices)

    @property
    def packed(self) -> bool:
        """Whether the matrices are quantized."""
        return isinstance(self.matrices[0], PackedWeight)

    def __len__(self) -> int:
        return len(self.matrices)


@dataclass(frozen=True, slots=True)
class Choices:
    """Which experts tokens go to, and how experts find their tokens.

    Attributes:
        ids: int32 (tokens, k), experts of each token, best first.
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
    _check_choices(op, out, tokens, experts, logits, written=True)
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
    here = routing.on(logits.device)
    choose, group = here.route[""], here.group_by_expert[""]  # both, before one of them changes the logits
    where = out.ids.address, out.weights.address, logits.address, at_bias, scratch.address
    parts = min(split(FEW * logits.size, logits.device), scratch.shape[0])
    choose(*where, tokens, shape.address, parts)
    at = out.order.address, out.starts.address, out.places.address, out.ids.address
    group(*at, tokens * k, experts, 1)
    return out


def most_row_bytes(width: int) -> int:
    """Return the bytes of a row of that many activations in whichever form takes most."""
    return max(4 * width, record_bytes(width), rounded_bytes(width))


def expert_row_bytes(weights: ExpertWeights, *, rounds: bool = False) -> int:
    """Return the bytes of a row of activations as such matrices meet it."""
    k = weights.shape[1]
    return record_bytes(k) if weights.packed else rounded_bytes(k) if rounds else 4 * k


def expert_linears(
    x: Tensor,
    choices: Choices,
    weights: Sequence[ExpertWeights],
    outs: Sequence[Tensor],
    *,
    grouped: bool = False,
    rounds: bool = False,
    scratch: Tensor | None = None,
) -> None:
    """Multiply each token by the matrices of its experts: ``outs[i][j] = x[order[j] // k] @ weights[i][expert].T``.

    Each expert's matrix is read once for all of its tokens. Where weights are packed, rows of x are quantized to int8
    by groups of 32 inputs.

    Args:
        x: float32 (tokens, width), or where ``grouped`` (tokens * k, width), in the order of the choices.
        choices: Of these tokens, by ``route``.
        weights: One or two projections of one shape and form.
        outs: float32 (tokens * k, n), in the order of the choices. None shares memory with x or another.
        grouped: Whether x is in the order of the choices already.
        rounds: Whether rows are rounded to bfloat16 before they meet bfloat16 matrices.
        scratch: uint8, at least ``expert_row_bytes`` for each token and each choice; made when not given and needed,
            as it is not for packed weights and a few tokens on a GPU.

    Raises:
        TensorError: Shapes or dtypes do not fit, or what is written is read-only or shares memory.
    """
    op, first = "expert_linears", weights[0] if weights else None
    if first is None or len(weights) > 2 or len(outs) != len(weights):
        raise TensorError(f"{op}: {len(weights)} weights and {len(outs)} outs, expected one or two of each")
    if not all(w.contiguous for w in weights):
        raise TensorError(f"{op}: a weight is a strided view; make it .contiguous() first")
    if any((w.form, w.shape, len(w)) != (first.form, first.shape, len(first)) for w in weights):
        raise TensorError(f"{op}: weights differ in shape, form or number of experts, expected two alike")
    n, width = first.shape
    (tokens, k), rows = choices.ids.shape, choices.order.size
    check(op, "x", x, (rows if grouped else tokens, width))
    _check_choices(op, choices, tokens, len(first), x)
    for each in weights:
        check_same_device(op, "x", x, "weights", each.addresses)
    rounds = rounds and first.form == bfloat16.name
    quantizing = Quantizing.of(tokens, width, x.device) if first.packed else Quantizing(own=False, before=True)
    needed = expert_row_bytes(first, rounds=rounds) * (rows if grouped else tokens + rows)
    scratch = _scratch(op, x, scratch, needed, quantizing)
    for out in outs:
        check(op, "out", out, (rows, n))
        check_writable(op, "out", out)
        check_apart(op, "out", out, x=x, scratch=scratch)
    check_outs_apart(op, outs)
    fields = [value for w, out in zip(weights, outs, strict=True) for value in (out.address, w.addresses.address)]
    fields += [0] * (4 - len(fields))
    if quantizing.own:
        at = x.address, choices.starts.address, 0 if grouped else choices.order.address
        kernels.on(x.device).quantizing_experts[first.form](*at, *fields, len(first), n, width, k)
    if quantizing.before:
        _sort_and_multiply(x, choices, first, fields, scratch.address, grouped=grouped, rounds=rounds)


def _scratch(op: str, x: Tensor, scratch: Tensor | None, needed: int, quantizing: Quantizing) -> Tensor:
    """Return the bytes that rows go to in another form or order; none are made where the kernel itself brings them."""
    if scratch is None:
        return Tensor.empty((needed if quantizing.before else 0,), uint8, device=x.device)
    check(op, "scratch", scratch, (None,), uint8)
    check_writable(op, "scratch", scratch)
    if scratch.size < needed:
        raise TensorError(f"{op}: scratch has {scratch.size} bytes, expected at least {needed}")
    check_apart(op, "scratch", scratch, x=x)
    return scratch


def _sort_and_multiply(
    x: Tensor,
    choices: Choices,
    weights: ExpertWeights,
    fields: Sequence[int],
    scratch: int,
    *,
    grouped: bool,
    rounds: bool,
) -> None:
    """Bring rows into their form and into the order of experts, and multiply them."""
    (n, width), (tokens, k), rows = weights.shape, choices.ids.shape, choices.order.size
    line, lines = expert_row_bytes(weights, rounds=rounds), _lines(x, weights, scratch, rounds)
    if not grouped:
        to = scratch + line * tokens
        parts = split(rows * line // 4, x.device)
        kernels.on(x.device).gather_choices(to, lines, choices.order.address, rows, k, line, parts)
        lines = to
    form = sizes.ROUNDED if rounds else weights.form
    multiply = kernels.on(x.device).experts_linear[form]
    # behind the sizes is how many threads a CPU splits over; a GPU chooses kernels by how many rows an expert may have
    last = x.device.threads if x.device.stream is None else tokens
    multiply(lines, choices.starts.address, *fields, len(weights), n, width, line, last)


def add_choices(out: Tensor, y: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Add up what each token's experts say, weighted: ``out[t] += sum_j weights[t, j] * y[places[t, j]]``.

    Args:
        out: float32 (tokens, n), the residual stream. Must not share memory with the others.
        y: float32 (tokens * k, n), in the order of the choices.
        places: int32 (tokens, k), which rows of y are a token's, as ``route`` gives them.
        weights: float32 (tokens, k), what each of them counts.

    Returns:
        ``out``. A token's bits depend on nothing but its own rows.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    op = "add_choices"
    check(op, "out", out, (None, None))
    check_writable(op, "out", out)
    tokens, n = out.shape
    check(op, "places", places, (tokens, None), int32)
    k = places.shape[1]
    check(op, "weights", weights, (tokens, k))
    check(op, "y", y, (tokens * k, n))
    check_apart(op, "out", out, y=y, places=places, weights=weights)
    at = out.address, y.address, places.address, weights.address
    kernels.on(out.device).add_choices(*at, tokens, k, n, split(tokens * k * n, out.device))
    return out


def _lines(x: Tensor, weights: ExpertWeights, scratch: int, rounds: bool) -> int:
    """Bring rows into the form in which these matrices meet them; return where they are."""
    rows, width = x.shape
    if weights.packed:
        parts = split(WORK * x.size, x.device)
        quantize.on(x.device).quantize[weights.form](scratch, x.address, rows, width, parts)
        return scratch
    if rounds:
        rounding.on(x.device).round_rows(scratch, x.address, rows, width, split(x.size, x.device))
        return scratch
    return x.address


def _form(matrix: Tensor | PackedWeight) -> str:
    if isinstance(matrix, PackedWeight):
        return matrix.form.name
    if matrix.dtype.name not in FLOATS or matrix.ndim != 2:
        raise TensorError(
            f"ExpertWeights: a matrix is {matrix.dtype} {matrix.shape}, expected a matrix of "
            f"{', '.join(FLOATS)}, or a PackedWeight"
        )
    return matrix.dtype.name


def _check_choices(op: str, choices: Choices, tokens: int, experts: int, x: Tensor, *, written: bool = False) -> None:
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
