"""Linear layers on tensors."""

from __future__ import annotations

from collections.abc import Sequence

from pio.kernels import launcher
from pio.ops._check import all_threads, check, check_float, check_tensor
from pio.ops._overlap import check_apart, check_outs_apart
from pio.ops._tensors import check_writable
from pio.tensor import Tensor

kernels = launcher.module("linear")
MANY = 3  # layers that one job computes


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
    check("linear", "x", x, (None, None))
    rows, k = x.shape
    check_float("linear", "weight", weight, (None, k))
    n = weight.shape[0]
    if out is None:
        out = Tensor.zeros((rows, n)) if add else Tensor.empty((rows, n))
    check("linear", "out", out, (rows, n))
    check_writable("linear", "out", out)
    at_bias = 0
    if bias is not None:
        check("linear", "bias", bias, (n,), weight.dtype)
        at_bias = bias.address
    check_apart("linear", "out", out, x=x, weight=weight, bias=bias)
    kernels.linear[weight.dtype.name](
        out.address, x.address, weight.address, at_bias, rows, n, k, n, int(add), threads or all_threads()
    )
    return out


def linears(
    x: Tensor,
    weights: Sequence[Tensor],
    outs: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None = None,
    *,
    threads: int | None = None,
) -> None:
    """Compute several linear layers of one input: ``outs[i] = x @ weights[i].T (+ biases[i])``.

    Two or three of one element type run as one job, which costs less than one after another; the bits are the same.

    Args:
        x: float32 (rows, k).
        weights: float32, float16 or bfloat16 (n_i, k).
        outs: float32 (rows, n_i); none shares memory with x or another.
        biases: (n_i,) of the weights' types, or None for none.
        threads: Over how many threads to split the outputs; all by default.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an output is read-only.
    """
    given = list(biases) if biases is not None else [None] * len(weights)
    for weight in weights:
        check_tensor("linears", "weight", weight)
    if not weights:
        return
    kind = weights[0].dtype
    if len(weights) > MANY or any(weight.dtype is not kind for weight in weights):
        for weight, out, bias in zip(weights, outs, given, strict=True):
            linear(x, weight, bias, out=out, threads=threads)
        return
    check("linears", "x", x, (None, None))
    rows, k = x.shape
    fields: list[int] = []
    for weight, out, bias in zip(weights, outs, given, strict=True):
        check_float("linears", "weight", weight, (None, k))
        n = weight.shape[0]
        check("linears", "out", out, (rows, n))
        check_writable("linears", "out", out)
        if bias is not None:
            check("linears", "bias", bias, (n,), kind)
        check_apart("linears", "out", out, x=x, weight=weight, bias=bias)
        fields += out.address, weight.address, 0 if bias is None else bias.address, n
    check_outs_apart("linears", outs)
    fields += [0] * (4 * (MANY - len(weights)))
    kernels.linear_three[kind.name](x.address, *fields, rows, k, threads or all_threads())
