"""Mixtures of experts: linear layers of those that tokens chose, and adding up what they say."""

from __future__ import annotations

from collections.abc import Sequence

from pio.dtypes import bfloat16, int32, uint8
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check, split
from pio.ops._linears import Quantizing
from pio.ops._overlap import check_apart, check_outs_apart, check_same_device
from pio.ops._tensors import check_writable
from pio.ops.bfloat16 import rounded_bytes
from pio.ops.expert_weights import ExpertWeights
from pio.ops.quantized import WORK, record_bytes
from pio.ops.routing import Choices, check_choices
from pio.tensor import Tensor

rounding = launcher.module("bfloat16_linear")
kernels = launcher.module("experts")
quantize = launcher.module("quantize")


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
        choices: Of these tokens, by ``route`` or as it makes them, each token's experts all different. Nothing looks
            whether they are: on a GPU rows are left as they were of an expert that has more of them than there are
            tokens.
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
    check_choices(op, choices, tokens, len(first), x)
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
