"""Convolution over time on tensors."""

from __future__ import annotations

from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_float, check_tensor, split
from pio.ops._overlap import check_apart, check_same_device
from pio.ops._tensors import check_writable, row_stride
from pio.ops.slices import Slices
from pio.ops.window import Window, check_kept
from pio.tensor import Tensor

kernels = launcher.module("causal_conv")
WIDEST = 8  # tokens; the inputs of as many rows are read for each output


def causal_conv(
    x: Tensor,
    weight: Tensor,
    state: Tensor,
    batch: Slices,
    *,
    out: Tensor | None = None,
    window: Window | None = None,
) -> Tensor:
    """Convolve each channel with its own past, and apply silu: ``silu(sum_j weight[j] * x[t - (width - 1) + j])``.

    Args:
        x: float32 (T, channels); there may be gaps between tokens, as inside a fused projection.
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
    check_tensor("causal_conv", "x", x)
    if len(x.shape) != 2:
        raise TensorError(f"causal_conv: x has shape {x.shape}, expected (tokens, channels)")
    channels = x.shape[1]
    ldx = row_stride("causal_conv", "x", x)
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
        out = Tensor.empty(x.shape, device=x.device)
    check_writable("causal_conv", "out", out)
    ldo = row_stride("causal_conv", "out", out, x.shape)
    check_apart("causal_conv", "state", state, x=x, weight=weight)
    check_apart("causal_conv", "out", out, x=x, weight=weight, state=state)
    check_kept("causal_conv", window, 0 if window is None else window.inputs.shape[0] - width + 1, batch)
    check_same_device("causal_conv", "out", out, "batch", batch.record)
    if window is not None:
        check_same_device("causal_conv", "out", out, "window.inputs", window.inputs)
        check("causal_conv", "window.inputs", window.inputs, (None, channels))
        check_writable("causal_conv", "window.inputs", window.inputs)
    if not x.size:
        return out
    kept = 0 if window is None else window.inputs.address
    at = out.address, x.address, weight.address, state.address, kept, batch.record.address
    parts = split((4 + width) * x.size, x.device)  # an exponential costs as much as some sums
    kernels.on(x.device).causal_conv[weight.dtype.name](*at, channels, width, ldo, ldx, parts)
    return out
