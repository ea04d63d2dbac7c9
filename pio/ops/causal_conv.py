"""Convolution over time on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_float, check_tensor, split
from pio.ops._overlap import check_apart, check_same_device
from pio.ops._record import record
from pio.ops._tensors import check_writable, head_strides, row_stride
from pio.ops.slices import Slices
from pio.ops.window import Window, check_kept
from pio.tensor import Tensor

kernels = launcher.module("causal_conv")
WIDEST = 8  # tokens; the inputs of as many rows are read for each output


def causal_conv(
    x: Tensor | Sequence[Tensor],
    weight: Tensor,
    state: Tensor,
    batch: Slices,
    *,
    out: Tensor | None = None,
    window: Window | None = None,
) -> Tensor:
    """Convolve each channel with its own past, and apply silu: ``silu(sum_j weight[j] * x[t - (width - 1) + j])``.

    Args:
        x: float32 (T, channels); there may be gaps between tokens, as inside a fused projection. Or several float32
            (T, heads, dim) with gaps between heads too, whose heads one after the other are the channels.
        weight: float32, float16 or bfloat16 (width, channels), width from 1 to 8: the transpose, made once, of what a
            checkpoint holds as (channels, 1, width).
        state: float32 (slots, width - 1, channels): the last inputs of each sequence. The slots of the batch's
            sequences are overwritten.
        batch: Where each token belongs, and in which slot the state of each sequence is.
        out: float32 (T, channels), gaps allowed; made when not given. It must not be x.
        window: Keeps what ``commit_inputs`` needs of tentative sequences, whose states stay as they are; a batch
            without any needs none.

    Returns:
        ``out``. A token's bits do not depend on the rest of the batch, on how its sequence was cut or on threads.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit, or a result shares memory with another argument.
    """
    given, fields = _inputs(x)
    tokens, device = given[0].shape[0], given[0].device
    channels = sum(prod(part.shape[1:]) for part in given)
    check_float("causal_conv", "weight", weight, (None, channels))
    width = weight.shape[0]
    if not 1 <= width <= WIDEST:
        raise TensorError(
            f"causal_conv: weight has shape {weight.shape}, expected (width, channels), width from 1 to {WIDEST}; "
            "transpose what a checkpoint holds as (channels, 1, width)"
        )
    check("causal_conv", "state", state, (None, width - 1, channels))
    check_writable("causal_conv", "state", state)
    if out is None:
        out = Tensor.empty((tokens, channels), device=device)
    check_writable("causal_conv", "out", out)
    ldo = row_stride("causal_conv", "out", out, (tokens, channels))
    for part in given:
        check_apart("causal_conv", "state", state, x=part, weight=weight)
        check_apart("causal_conv", "out", out, x=part, weight=weight, state=state)
    check_kept("causal_conv", window, 0 if window is None else window.inputs.shape[0] - width + 1, batch)
    check_same_device("causal_conv", "out", out, "batch", batch.record)
    if window is not None:
        check_same_device("causal_conv", "out", out, "window.inputs", window.inputs)
        check("causal_conv", "window.inputs", window.inputs, (None, channels))
        check_writable("causal_conv", "window.inputs", window.inputs)
    if not out.size:
        return out
    kept, inputs = 0 if window is None else window.inputs.address, record(*fields, device=device)
    at = out.address, inputs.address, weight.address, state.address, kept, batch.record.address
    parts = split((4 + width) * out.size, device)  # an exponential costs as much as some sums
    kernels.on(device).causal_conv[weight.dtype.name](*at, channels, width, ldo, parts)
    return out


def _inputs(x: Tensor | Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Check the inputs; return the parts they come in, and what kernels read of these."""
    if isinstance(x, Tensor):
        if len(x.shape) != 2:
            raise TensorError(f"causal_conv: x has shape {x.shape}, expected (tokens, channels)")
        return [x], [x.address, x.shape[1], x.shape[1], row_stride("causal_conv", "x", x), x.shape[1]]
    given = list(x) if isinstance(x, (list, tuple)) else []
    if not given:
        check_tensor("causal_conv", "x", x)
    fields: list[int] = []
    for i, part in enumerate(given):
        token, head = head_strides("causal_conv", f"x[{i}]", part)
        if len(part.shape) != 3 or part.shape[0] != given[0].shape[0]:
            raise TensorError(
                f"causal_conv: x[{i}] has shape {part.shape}, expected ({given[0].shape[0]}, heads, dim) as all have"
            )
        fields += [part.address, part.shape[2], part.shape[1] * part.shape[2], token, head]
    return given, fields
