"""Softmax of tensors."""

from __future__ import annotations

from pio.kernels import launcher
from pio.ops._check import split
from pio.ops._overlap import check_same_or_apart
from pio.ops._tensors import check_last_axis, result
from pio.tensor import Tensor

kernels = launcher.module("softmax")


def softmax(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Turn rows into probabilities: ``exp(x - max(x)) / sum(exp(x - max(x)))`` over the last axis.

    Args:
        x: float32 (..., n), contiguous. -inf gives the probability 0; a row with NaN or +inf, or with nothing but
            -inf, gives NaN everywhere.
        out: float32, of x's shape; made when not given. It may be x.

    Returns:
        ``out``. A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or a tensor is strided.
    """
    n = check_last_axis("softmax", "x", x)
    out = result("softmax", out, x.shape, device=x.device)
    check_same_or_apart("softmax", "out", out, x=x)
    if not x.size:
        return out
    rows = x.size // n
    parts = min(rows, split(4 * x.size, x.device))  # an exponential costs as much as some sums
    kernels.on(x.device).softmax(out.address, x.address, rows, n, parts)
    return out
