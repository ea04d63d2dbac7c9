"""Linear layers with bfloat16 weights whose inputs are rounded to bfloat16 too."""

from __future__ import annotations

from collections.abc import Sequence

from pio.dtypes import bfloat16
from pio.kernels import launcher, sizes
from pio.ops._check import check, split
from pio.ops._linears import Matrix, multiply
from pio.ops._overlap import check_apart, check_outs_apart
from pio.ops._tensors import check_writable, scratch_rows
from pio.tensor import Tensor

kernels = launcher.module("bfloat16_linear")
ROW_STEP = 2 * sizes.PAIR_LANES  # bytes


def multiplies_bfloat16() -> bool:
    """Return whether the processor has an instruction for products of bfloat16, as kernels are compiled for it."""
    return sizes.PAIRS != "portable"


def rounded_bytes(columns: int) -> int:
    """Return the bytes of a rounded row of activations of that length."""
    return -(-2 * columns // ROW_STEP) * ROW_STEP


def bfloat16_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    add: bool = False,
    scratch: Tensor | None = None,
) -> Tensor:
    """Multiply rows, rounded to bfloat16, by the rows of a weight: ``x @ weight.T (+ out if add) (+ bias)``.

    Args:
        x: float32 (rows, k).
        weight: bfloat16 (n, k).
        bias: bfloat16 (n,).
        out: float32 (rows, n); made when not given, zero where ``add`` is set. Must not share memory with x.
        add: Add to what ``out`` holds: a residual connection.
        scratch: uint8, at least rows * ``rounded_bytes(k)``, for the rounded rows; made when not given. Must not share
            memory with the others.

    Returns:
        float32 (rows, n), sums in float32. A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    op = "bfloat16_linear"
    check(op, "x", x, (None, None))
    rows, k = x.shape
    check(op, "weight", weight, (None, k), bfloat16)
    n = weight.shape[0]
    if out is None:
        out = (Tensor.zeros if add else Tensor.empty)((rows, n), device=x.device)
    rounded = scratch_rows(op, x, scratch, rounded_bytes(k))
    matrix = _product(op, x, rounded, weight, bias, out)
    kernels.on(x.device).round_rows(rounded.address, x.address, rows, k, split(x.size, x.device))
    multiply(sizes.ROUNDED, rounded.address, [matrix], rows, k, x.device, add=add)
    return out


def bfloat16_linears(
    x: Tensor,
    weights: Sequence[Tensor],
    outs: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None = None,
    *,
    scratch: Tensor | None = None,
) -> None:
    """Compute several layers of one input: ``outs[i] = x @ weights[i].T (+ biases[i])``.

    The input is rounded once and all run as one job; the bits are the same.

    Args:
        x: float32 (rows, k).
        weights: bfloat16 (n_i, k).
        outs: float32 (rows, n_i); none shares memory with x or another.
        biases: bfloat16 (n_i,), or None for none.
        scratch: As in ``bfloat16_linear``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an output is read-only.
    """
    op = "bfloat16_linears"
    given = list(biases) if biases is not None else [None] * len(weights)
    if not weights:
        return
    check(op, "x", x, (None, None))
    rows, k = x.shape
    rounded = scratch_rows(op, x, scratch, rounded_bytes(k))
    matrices: list[Matrix] = []
    for weight, out, bias in zip(weights, outs, given, strict=True):
        matrices.append(_product(op, x, rounded, weight, bias, out))
    check_outs_apart(op, outs)
    kernels.on(x.device).round_rows(rounded.address, x.address, rows, k, split(x.size, x.device))
    multiply(sizes.ROUNDED, rounded.address, matrices, rows, k, x.device, add=False)


def _product(op: str, x: Tensor, rounded: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Matrix:
    """Check one product; return what the kernel takes."""
    rows, k = x.shape
    check(op, "weight", weight, (None, k), bfloat16)
    n = weight.shape[0]
    check(op, "out", out, (rows, n))
    check_writable(op, "out", out)
    if bias is not None:
        check(op, "bias", bias, (n,), bfloat16)
    check_apart(op, "out", out, x=x, weight=weight, bias=bias, scratch=rounded)
    check_apart(op, "scratch", rounded, weight=weight, bias=bias)
    return out.address, weight.address, 0 if bias is None else bias.address, n
