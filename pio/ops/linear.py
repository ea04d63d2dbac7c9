"""Linear layers on tensors."""

from __future__ import annotations

from pio.kernels import linear as kernels
from pio.ops._check import all_threads, check, check_float
from pio.ops._tensors import check_writable
from pio.tensor import Tensor


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    add: bool = False,
    threads: int | None = None,
) -> Tensor:
    """Multiply rows by the rows of a weight: ``x @ weight.T (+ out if add) (+ bias)``.

    Args:
        x: float32 (rows, k).
        weight: float32, float16 or bfloat16 (n, k), as checkpoints store it.
        bias: (n,) of the weight's type.
        out: float32 (rows, n); made when not given, zero where ``add`` is set. Must not share memory with x.
        add: Add to what ``out`` holds: a residual connection.
        threads: Over how many threads to split the outputs; all by default.

    Returns:
        float32 (rows, n). A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    rows, k = x.shape
    n = weight.shape[0]
    check("linear", "x", x, (rows, k))
    check_float("linear", "weight", weight, (n, k))
    if out is None:
        out = Tensor.zeros((rows, n)) if add else Tensor.empty((rows, n))
    check("linear", "out", out, (rows, n))
    check_writable("linear", "out", out)
    at_bias = 0
    if bias is not None:
        check("linear", "bias", bias, (n,), weight.dtype)
        at_bias = bias.address
    kernels.linear[weight.dtype.name](
        out.address, x.address, weight.address, at_bias, rows, n, k, n, int(add), threads or all_threads()
    )
    return out
