"""Linear layers on tensors."""

from __future__ import annotations

from collections.abc import Sequence

from pio.ops._check import check, check_float, check_tensor
from pio.ops._linears import Matrix, multiply
from pio.ops._overlap import check_apart, check_outs_apart
from pio.ops._tensors import check_writable
from pio.tensor import Tensor


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    add: bool = False,
) -> Tensor:
    """Multiply rows by the rows of a weight: ``x @ weight.T (+ out if add) (+ bias)``.

    Args:
        x: float32 (rows, k).
        weight: float32, float16 or bfloat16 (n, k), as checkpoints store it.
        bias: (n,) of the weight's type.
        out: float32 (rows, n); made when not given, zero where ``add`` is set. Must not share memory with x.
        add: Add to what ``out`` holds: a residual connection.

    Returns:
        float32 (rows, n). A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    check("linear", "x", x, (None, None))
    rows, k = x.shape
    check_float("linear", "weight", weight, (None, k))
    n = weight.shape[0]
    if out is None:
        out = (Tensor.zeros if add else Tensor.empty)((rows, n), device=x.device)
    check("linear", "out", out, (rows, n))
    check_writable("linear", "out", out)
    at_bias = 0
    if bias is not None:
        check("linear", "bias", bias, (n,), weight.dtype)
        at_bias = bias.address
    check_apart("linear", "out", out, x=x, weight=weight, bias=bias)
    matrix = out.address, weight.address, at_bias, n
    multiply(weight.dtype.name, x.address, [matrix], rows, k, x.device, add=add)
    return out


def linears(
    x: Tensor,
    weights: Sequence[Tensor],
    outs: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None = None,
) -> None:
    """Compute several linear layers of one input: ``outs[i] = x @ weights[i].T (+ biases[i])``.

    Those of one element type run as one job, which costs less than one after another; the bits are the same.

    Args:
        x: float32 (rows, k).
        weights: float32, float16 or bfloat16 (n_i, k).
        outs: float32 (rows, n_i); none shares memory with x or another.
        biases: (n_i,) of the weights' types, or None for none.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an output is read-only.
    """
    given = list(biases) if biases is not None else [None] * len(weights)
    for weight in weights:
        check_tensor("linears", "weight", weight)
    if not weights:
        return
    dtype = weights[0].dtype
    if any(weight.dtype is not dtype for weight in weights):
        for weight, out, bias in zip(weights, outs, given, strict=True):
            linear(x, weight, bias, out=out)
        return
    check("linears", "x", x, (None, None))
    rows, k = x.shape
    matrices: list[Matrix] = []
    for weight, out, bias in zip(weights, outs, given, strict=True):
        check_float("linears", "weight", weight, (None, k))
        n = weight.shape[0]
        check("linears", "out", out, (rows, n))
        check_writable("linears", "out", out)
        if bias is not None:
            check("linears", "bias", bias, (n,), dtype)
        check_apart("linears", "out", out, x=x, weight=weight, bias=bias)
        matrices.append((out.address, weight.address, 0 if bias is None else bias.address, n))
    check_outs_apart("linears", outs)
    multiply(dtype.name, x.address, matrices, rows, k, x.device, add=False)
