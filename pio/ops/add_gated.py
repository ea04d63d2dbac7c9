"""A sum behind a gate, on tensors."""

from __future__ import annotations

from pio.kernels import launcher
from pio.ops._check import check, check_float, split
from pio.ops._overlap import check_apart
from pio.ops._tensors import check_writable, result
from pio.tensor import Tensor

kernels = launcher.module("add_gated")


def add_gated(out: Tensor, y: Tensor, x: Tensor, weight: Tensor, *, scratch: Tensor | None = None) -> Tensor:
    """Add rows to others, each as far as its gate lets it: ``out[t] += sigmoid(x[t] @ weight[0]) * y[t]``.

    Args:
        out: float32 (tokens, n), the residual stream. Must not share memory with the others.
        y: float32 (tokens, n).
        x: float32 (tokens, k).
        weight: float32, float16 or bfloat16 (1, k), as checkpoints store a linear layer of one output.
        scratch: float32 (tokens,), overwritten; made when not given.

    Returns:
        ``out``. A token's bits depend on nothing but its own rows.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    op = "add_gated"
    check(op, "out", out, (None, None))
    check_writable(op, "out", out)
    tokens, n = out.shape
    check(op, "y", y, out.shape)
    check(op, "x", x, (tokens, None))
    k = x.shape[1]
    check_float(op, "weight", weight, (1, k))
    logits = result(op, scratch, (tokens,), device=out.device, name="scratch")
    check_apart(op, "out", out, y=y, x=x, weight=weight, scratch=logits)
    check_apart(op, "scratch", logits, y=y, x=x, weight=weight)
    at = out.address, y.address, x.address, weight.address, logits.address
    kernels.on(out.device).add_gated[weight.dtype.name](*at, tokens, n, k, split(y.size + x.size, out.device))
    return out
