"""Arithmetic on tensors of the same shape."""

from __future__ import annotations

from pio.kernels import launcher
from pio.ops._check import check, split
from pio.ops._overlap import check_same_or_apart
from pio.ops._tensors import result
from pio.tensor import Tensor

kernels = launcher.module("elementwise")


def add(x: Tensor, y: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Add two tensors of the same shape.

    Args:
        x: float32, any shape, contiguous.
        y: float32, of x's shape, contiguous.
        out: float32, of x's shape; made when not given. It may be x or y.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes or dtypes differ, or a tensor is strided.
    """
    check("add", "x", x)
    check("add", "y", y, x.shape)
    out = result("add", out, x.shape, device=x.device)
    check_same_or_apart("add", "out", out, x=x, y=y)
    n, parts = x.size, split(x.size, x.device)
    kernels.on(x.device).add(out.address, x.address, y.address, n, parts)
    return out


def mul(x: Tensor, y: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Multiply two tensors of the same shape, element by element; arguments as in ``add``.

    Raises:
        TensorError: Shapes or dtypes differ, or a tensor is strided.
    """
    check("mul", "x", x)
    check("mul", "y", y, x.shape)
    out = result("mul", out, x.shape, device=x.device)
    check_same_or_apart("mul", "out", out, x=x, y=y)
    n, parts = x.size, split(x.size, x.device)
    kernels.on(x.device).mul(out.address, x.address, y.address, n, parts)
    return out
