"""Copies of tensors, converted from one element type to another."""

from __future__ import annotations

from itertools import chain

from pio.device import Device
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check_tensor, split
from pio.ops._overlap import check_apart
from pio.ops._record import record
from pio.ops._tensors import check_writable
from pio.tensor import Tensor

kernels = launcher.module("copy")
Axis = tuple[int, int, int]  # length, stride of the target, stride of the source
MAX_AXES = 6


def copy(dst: Tensor, src: Tensor) -> Tensor:
    """Overwrite a tensor with the elements of another, converted where the types differ.

    A float becomes another float by rounding to nearest, ties to even, too large ones infinite. A float becomes an
    integer by rounding towards zero, NaN becomes 0. An integer becomes a float by way of float32. What an integer
    type cannot hold becomes its nearest end.

    Args:
        dst: Any dtype, any strides.
        src: Any dtype, any strides, of dst's shape. Must not share memory with dst.

    Returns:
        dst.

    Raises:
        TensorError: The shapes differ, or dst is read-only.
    """
    check_tensor("copy", "dst", dst)
    check_tensor("copy", "src", src)
    if dst.shape != src.shape:
        raise TensorError(f"copy: src has shape {src.shape}, expected {dst.shape} as dst has")
    check_writable("copy", "dst", dst)
    check_apart("copy", "dst", dst, src=src)
    to, at = dst.address, src.address
    axes: list[Axis] = []
    for n, stride, from_stride in zip(dst.shape, dst.strides, src.strides, strict=True):
        if stride < 0:  # walk the axis backwards in both, so that targets follow each other in memory
            to += (n - 1) * stride * dst.dtype.itemsize
            at += (n - 1) * from_stride * src.dtype.itemsize
            stride, from_stride = -stride, -from_stride
        if n != 1:
            axes.append((n, stride, from_stride))
    conversion = f"{src.dtype.name}_to_{dst.dtype.name}"
    if dst.size:
        _copy_axes(conversion, to, at, merged(axes), split(dst.size, dst.device), dst.device)
    return dst


def merged(axes: list[Axis]) -> list[Axis]:
    """Return the axes from the widest target stride to the narrowest, those that one stride walks through joined."""
    out: list[Axis] = []
    for n, stride, from_stride in sorted(axes, key=lambda axis: (-axis[1], -abs(axis[2]))):
        if out and out[-1][1] == n * stride and out[-1][2] == n * from_stride:
            out[-1] = (out[-1][0] * n, stride, from_stride)
        else:
            out.append((n, stride, from_stride))
    return out


def _copy_axes(conversion: str, to: int, at: int, axes: list[Axis], parts: int, device: Device) -> None:
    if len(axes) > MAX_AXES:
        n, stride, from_stride = axes[0]
        source, _, target = conversion.partition("_to_")
        for i in range(n):
            there, here = to + i * stride * sizes.size_of(target), at + i * from_stride * sizes.size_of(source)
            _copy_axes(conversion, there, here, axes[1:], parts, device)
        return
    # the first axis is the one that is split, the last the one that is vectorised
    ones: list[Axis] = [(1, 0, 0)] * (MAX_AXES - len(axes))
    box = [*axes[:-1], *ones, axes[-1]] if axes else ones
    parts = min(parts, box[0][0] if box[0][0] > 1 else box[-1][0])
    numbers = record(*chain.from_iterable(box), device=device)
    kernels.on(device).copy[conversion](to, at, numbers.address, parts)
