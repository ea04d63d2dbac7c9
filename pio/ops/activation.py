"""Activation functions on tensors."""

from __future__ import annotations

from typing import Literal

from pio.errors import ConfigError, TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_tensor, split
from pio.ops._overlap import check_same_or_apart
from pio.ops._tensors import check_writable, head_strides, result, row_stride
from pio.tensor import Tensor

kernels = launcher.module("activation")


def silu(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Apply the sigmoid-weighted linear unit: ``x / (1 + exp(-x))``.

    Args:
        x: float32, any shape, contiguous.
        out: float32, of x's shape; made when not given. It may be x.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or a tensor is strided.
    """
    return _apply("silu", "silu", x, out)


def gelu(
    x: Tensor,
    *,
    approximate: Literal["tanh", "none"] = "tanh",
    out: Tensor | None = None,
) -> Tensor:
    """Apply the Gaussian error linear unit: x times the probability that a normal variable is smaller.

    Args:
        x: float32, any shape, contiguous.
        approximate: "tanh" for ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x³)))``, "none" for
            ``x / 2 * (1 + erf(x / sqrt(2)))``, to 3e-7.
        out: float32, of x's shape; made when not given. It may be x.

    Returns:
        ``out``.

    Raises:
        ConfigError: ``approximate`` is neither.
        TensorError: Shapes or dtypes do not fit, or a tensor is strided.
    """
    if approximate == "tanh":
        return _apply("gelu", "gelu_tanh", x, out)
    if approximate == "none":
        return _apply("gelu", "gelu", x, out)
    raise ConfigError(f'gelu: approximate is {approximate!r}, expected "tanh" or "none"')


def _apply(op: str, kernel: str, x: Tensor, out: Tensor | None) -> Tensor:
    check(op, "x", x)
    out = result(op, out, x.shape, device=x.device)
    check_same_or_apart(op, "out", out, x=x)
    n, parts = x.size, split(4 * x.size, x.device)  # an exponential costs as much as some sums
    getattr(kernels.on(x.device), kernel)(out.address, x.address, n, parts)
    return out


def swiglu(gate: Tensor, up: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Gate the up projection: ``silu(gate) * up``.

    Args:
        gate: float32 (rows, n); there may be gaps between rows, as in one half of a fused projection.
        up: float32 (rows, n), gaps allowed.
        out: float32 (rows, n), gaps allowed; made when not given. It may be gate or up.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit.
    """
    check_tensor("swiglu", "gate", gate)
    if len(gate.shape) != 2:
        raise TensorError(f"swiglu: gate has shape {gate.shape}, expected (rows, n)")
    if out is None:
        out = Tensor.empty(gate.shape, device=gate.device)
    check_writable("swiglu", "out", out)
    ldg, ldu = row_stride("swiglu", "gate", gate), row_stride("swiglu", "up", up, gate.shape)
    ldo = row_stride("swiglu", "out", out, gate.shape)
    check_same_or_apart("swiglu", "out", out, gate=gate, up=up)
    rows, n = gate.shape
    parts = split(4 * rows * n, gate.device)  # an exponential costs as much as some sums
    at = out.address, gate.address, up.address
    kernels.on(gate.device).swiglu(*at, rows, n, ldo, ldg, ldu, parts)
    return out


def sigmoid_gate(x: Tensor, gate: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Multiply by a gate: ``x / (1 + exp(-gate))``.

    Args:
        x: float32 (rows, n) or (tokens, heads, n); there may be gaps between rows or tokens.
        gate: float32, of x's shape; there may be gaps between heads too, as where each head's gate follows its query.
        out: float32, of x's shape, gaps allowed as in x; made when not given. It may be x or gate.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit.
    """
    check_tensor("sigmoid_gate", "x", x)
    if len(x.shape) not in (2, 3):
        raise TensorError(f"sigmoid_gate: x has shape {x.shape}, expected (rows, n) or (tokens, heads, n)")
    ldx, (ldg, head_g) = row_stride("sigmoid_gate", "x", x), head_strides("sigmoid_gate", "gate", gate, x.shape)
    if out is None:
        out = Tensor.empty(x.shape, device=x.device)
    check_writable("sigmoid_gate", "out", out)
    ldo = row_stride("sigmoid_gate", "out", out, x.shape)
    check_same_or_apart("sigmoid_gate", "out", out, x=x, gate=gate)
    if not x.size:
        return out
    n, heads = x.shape[-1], x.shape[1] if len(x.shape) == 3 else 1
    parts = split(4 * x.size, x.device)  # an exponential costs as much as some sums
    at = out.address, x.address, gate.address
    kernels.on(x.device).sigmoid_gate(*at, x.size // n, heads, n, ldo, ldx, ldg, head_g, parts)
    return out
