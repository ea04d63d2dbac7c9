"""Convolutions over one and two dimensions, on tensors."""

from __future__ import annotations

from typing import TypeAlias

from pio.errors import TensorError
from pio.kernels import launcher
from pio.kernels.sizes import CONV_COLUMNS, CONV_PARTS
from pio.ops._check import check, split
from pio.ops._overlap import check_apart
from pio.ops._record import record
from pio.ops._tensors import result
from pio.tensor import Tensor

kernels = launcher.module("conv")

Pair: TypeAlias = "int | tuple[int, int]"


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    out: Tensor | None = None,
) -> Tensor:
    """Convolve rows: ``out[o, y] = bias[o] + sum_c,i weight[o, c, i] * x[c, y * stride - padding + i * dilation]``.

    Args:
        x: float32 (channels, length), contiguous.
        weight: float32 (outputs, channels / groups, width), contiguous, as checkpoints hold it.
        bias: float32 (outputs,).
        stride: From one output to the next.
        padding: Zeros before and behind each row.
        dilation: From one weight's input to the next one's.
        groups: Into how many groups channels and outputs are cut; each output meets the channels of its group.
        out: float32 (outputs, (length + 2 * padding - dilation * (width - 1) - 1) // stride + 1); made when not given.

    Returns:
        ``out``. Bits do not depend on threads.

    Raises:
        TensorError: Shapes, dtypes or sizes do not fit, or out shares memory with another argument.
    """
    check("conv1d", "x", x, (None, None))
    check("conv1d", "weight", weight, (None, None, None))
    channels, length = x.shape
    outputs, depth, width = weight.shape
    flat = x.reshape(channels, 1, length), weight.reshape(outputs, depth, 1, width)
    steps = (
        (1, _whole("conv1d", "stride", stride, 1)),
        (0, _whole("conv1d", "padding", padding, 0)),
        (1, _whole("conv1d", "dilation", dilation, 1)),
    )
    shape = _check_shapes("conv1d", *flat, bias, *steps, groups)
    return _convolve("conv1d", out, (outputs, shape[-1]), x, weight, bias, shape)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    out: Tensor | None = None,
) -> Tensor:
    """Convolve a picture: as ``conv1d``, with a sum over rows too.

    Args:
        x: float32 (channels, height, width), contiguous.
        weight: float32 (outputs, channels / groups, kernel height, kernel width), contiguous, as checkpoints hold it.
        bias: float32 (outputs,).
        stride: From one output to the next, down and across where two are given.
        padding: Rows of zeros above and below, and columns of zeros on both sides.
        dilation: From one weight's input to the next one's.
        groups: Into how many groups channels and outputs are cut; each output meets the channels of its group.
        out: float32 (outputs, out height, out width), lengths as in ``conv1d``; made when not given.

    Returns:
        ``out``. Bits do not depend on threads.

    Raises:
        TensorError: Shapes, dtypes or sizes do not fit, or out shares memory with another argument.
    """
    check("conv2d", "x", x, (None, None, None))
    check("conv2d", "weight", weight, (None, None, None, None))
    steps = (
        _pair("conv2d", "stride", stride, 1),
        _pair("conv2d", "padding", padding, 0),
        _pair("conv2d", "dilation", dilation, 1),
    )
    shape = _check_shapes("conv2d", x, weight, bias, *steps, groups)
    return _convolve("conv2d", out, (weight.shape[0], *shape[-2:]), x, weight, bias, shape)


def _whole(op: str, name: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 1 << 31:
        raise TensorError(f"{op}: {name} is {value!r}, expected a whole number from {least}")
    return value


def _pair(op: str, name: str, value: Pair, least: int) -> tuple[int, int]:
    down, across = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    return _whole(op, name, down, least), _whole(op, name, across, least)


def _check_shapes(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> tuple[int, ...]:
    """Return the kernel's record of sizes; its last two are the height and the width of the result."""
    channels, outputs = x.shape[0], weight.shape[0]
    _whole(op, "groups", groups, 1)
    if channels % groups or outputs % groups or not channels or not outputs:
        raise TensorError(f"{op}: {channels} channels and {outputs} outputs do not split into {groups} groups")
    if weight.shape[1] != channels // groups:
        raise TensorError(
            f"{op}: weight has {weight.shape[1]} channels, expected {channels // groups}: x has {channels} channels "
            f"in {groups} groups"
        )
    if bias is not None:
        check(op, "bias", bias, (outputs,))
    lengths: list[int] = []
    for axis in range(2):
        length, wide = x.shape[1 + axis], weight.shape[2 + axis]
        room = length + 2 * padding[axis] - dilation[axis] * (wide - 1) - 1
        if room < 0 or not wide:
            raise TensorError(
                f"{op}: weight of shape {weight.shape} with dilation {dilation[axis]} is longer than x of shape "
                f"{x.shape} with padding {padding[axis]}, or empty"
            )
        lengths.append(room // stride[axis] + 1)
    per_group = channels // groups, *x.shape[1:], outputs // groups, *weight.shape[2:]
    return (*per_group, *stride, *padding, *dilation, groups, *lengths)


def _convolve(
    op: str,
    out: Tensor | None,
    size: tuple[int, ...],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shape: tuple[int, ...],
) -> Tensor:
    out = result(op, out, size, device=x.device)
    check_apart(op, "out", out, x=x, weight=weight, bias=bias)
    depth = weight.size // weight.shape[0]
    parts = split(depth * out.size, x.device)
    scratch = Tensor.empty((CONV_PARTS * parts, depth, CONV_COLUMNS), device=x.device)
    at = out.address, x.address, weight.address, bias.address if bias is not None else 0, scratch.address
    sizes = record(*shape, device=x.device)
    kernels.on(x.device).conv2d(*at, sizes.address, parts)
    return out
