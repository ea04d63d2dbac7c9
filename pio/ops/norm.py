"""Normalisation of rows of tensors."""

from __future__ import annotations

from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_float, check_tensor, split
from pio.ops._overlap import check_apart, check_same_or_apart
from pio.ops._record import record
from pio.ops._tensors import check_last_axis, check_writable, head_strides, result, row_stride
from pio.tensor import Tensor

kernels = launcher.module("norm")


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    out: Tensor | None = None,
    zero_centred: bool = False,
) -> Tensor:
    """Divide rows by their root mean square and scale them: ``x / sqrt(mean(x²) + eps) * weight``.

    Args:
        x: float32 (..., dim), contiguous; or (rows, dim) or (tokens, heads, dim) with gaps between rows or tokens,
            such as the queries inside a fused projection.
        weight: float32, float16 or bfloat16 (dim,).
        eps: Added to the mean square.
        out: float32, of x's shape, gaps allowed as in x; made when not given. It may be x itself.
        zero_centred: Scale by ``1 + weight``.

    Returns:
        ``out``. A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit.
    """
    check_tensor("rms_norm", "x", x)
    if not x.shape:
        raise TensorError("rms_norm: x has shape (), expected at least one axis")
    dim = x.shape[-1]
    check_float("rms_norm", "weight", weight, (dim,))
    if out is None:
        out = Tensor.empty(x.shape, device=x.device)
    check_writable("rms_norm", "out", out)
    size = x.size
    if not size:
        return result("rms_norm", out, x.shape, device=x.device)
    rows, heads = size // dim, 1
    if x.is_contiguous and out.is_contiguous:
        check("rms_norm", "x", x)
        check("rms_norm", "out", out, x.shape)
        ldx = ldo = dim
    elif len(x.shape) in (2, 3):
        ldx, ldo = row_stride("rms_norm", "x", x), row_stride("rms_norm", "out", out, x.shape)
        heads = x.shape[1] if len(x.shape) == 3 else 1
    else:
        raise TensorError(f"rms_norm: x or out is a strided view of shape {x.shape}; make it .contiguous() first")
    check_same_or_apart("rms_norm", "out", out, x=x)
    check_apart("rms_norm", "out", out, weight=weight)
    parts = split(size, x.device)
    dtype, at = weight.dtype.name, (out.address, x.address, weight.address)
    kernels.on(x.device).rms_norm[dtype](*at, rows, heads, dim, ldo, ldx, eps, int(zero_centred), parts)
    return out


def fused_add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    *,
    out: Tensor | None = None,
    zero_centred: bool = False,
) -> Tensor:
    """Add to the residual stream in place, and normalise it: ``residual += x``, then ``rms_norm(residual)``.

    Args:
        x: float32 (..., dim), contiguous.
        residual: float32, of x's shape, contiguous; overwritten with the sum.
        weight: float32, float16 or bfloat16 (dim,).
        eps: Added to the mean square.
        out: float32, of x's shape, contiguous; made when not given. It may be x itself, not residual.
        zero_centred: Scale by ``1 + weight``.

    Returns:
        ``out``. A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, a tensor is strided, or ``out`` shares memory with ``residual``.
    """
    dim = check_last_axis("fused_add_rms_norm", "x", x)
    check("fused_add_rms_norm", "residual", residual, x.shape)
    check_writable("fused_add_rms_norm", "residual", residual)
    check_float("fused_add_rms_norm", "weight", weight, (dim,))
    out = result("fused_add_rms_norm", out, x.shape, device=x.device)
    if not x.size:
        return out
    check_apart("fused_add_rms_norm", "residual", residual, weight=weight)
    check_same_or_apart("fused_add_rms_norm", "residual", residual, x=x)
    check_apart("fused_add_rms_norm", "out", out, residual=residual, weight=weight)
    check_same_or_apart("fused_add_rms_norm", "out", out, x=x)
    rows, parts = x.size // dim, split(x.size, x.device)
    dtype, at = weight.dtype.name, (out.address, residual.address, x.address, weight.address)
    kernels.on(x.device).fused_add_rms_norm[dtype](*at, rows, dim, eps, int(zero_centred), parts)
    return out


def gated_rms_norm(
    x: Tensor,
    gate: Tensor,
    weight: Tensor,
    eps: float,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Divide rows by their root mean square, scale and gate them: ``x / sqrt(mean(x²) + eps) * weight * silu(gate)``.

    Args:
        x: float32 (rows, dim) or (tokens, heads, dim); there may be gaps between rows or tokens.
        gate: float32, of x's shape; there may be gaps between heads too. Or (tokens, groups, heads of a group, dim),
            with gaps between groups.
        weight: float32, float16 or bfloat16 (dim,).
        eps: Added to the mean square.
        out: float32, of x's shape, gaps allowed as in x; made when not given. It may be x or gate.

    Returns:
        ``out``. A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit.
    """
    check_tensor("gated_rms_norm", "x", x)
    if len(x.shape) not in (2, 3):
        raise TensorError(f"gated_rms_norm: x has shape {x.shape}, expected (rows, dim) or (tokens, heads, dim)")
    dim, heads = x.shape[-1], x.shape[1] if len(x.shape) == 3 else 1
    ldx, gate_strides = row_stride("gated_rms_norm", "x", x), _gate_strides(gate, x.shape)
    check_float("gated_rms_norm", "weight", weight, (dim,))
    if out is None:
        out = Tensor.empty(x.shape, device=x.device)
    check_writable("gated_rms_norm", "out", out)
    ldo = row_stride("gated_rms_norm", "out", out, x.shape)
    check_same_or_apart("gated_rms_norm", "out", out, x=x)
    (check_same_or_apart if len(gate.shape) == len(x.shape) else check_apart)("gated_rms_norm", "out", out, gate=gate)
    check_apart("gated_rms_norm", "out", out, weight=weight)
    if not x.size:
        return out
    parts = split(4 * x.size, x.device)  # an exponential costs as much as some sums
    shape = record(heads, dim, ldo, ldx, *gate_strides, float(eps), device=x.device)
    at = out.address, x.address, gate.address, weight.address
    kernels.on(x.device).gated_rms_norm[weight.dtype.name](*at, x.size // dim, shape.address, parts)
    return out


def _gate_strides(gate: Tensor, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return how far tokens of a gate lie apart, how many heads are a group, how far groups and heads are apart."""
    check_tensor("gated_rms_norm", "gate", gate)
    if len(gate.shape) != 4 or len(shape) != 3:
        token, head = head_strides("gated_rms_norm", "gate", gate, shape)
        return token, max(1, shape[-2] if len(shape) == 3 else 1), 0, head
    tokens, groups, each, dim = gate.shape
    if (tokens, groups * each, dim) != shape:
        raise TensorError(f"gated_rms_norm: gate has shape {gate.shape}, expected groups of heads of {shape}")
    head_strides("gated_rms_norm", "gate", gate[:, 0])
    return gate.strides[0], each, gate.strides[1], gate.strides[2]


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Centre rows, divide by their deviation: ``(x - mean(x)) / sqrt(var(x) + eps) * weight (+ bias)``.

    Args:
        x: float32 (..., dim), contiguous.
        weight: float32, float16 or bfloat16 (dim,).
        bias: (dim,) of the weight's type, or None.
        eps: Added to the variance, which divides by dim.
        out: float32, of x's shape, contiguous; made when not given. It may be x itself.

    Returns:
        ``out``. A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or a tensor is strided.
    """
    dim = check_last_axis("layer_norm", "x", x)
    check_float("layer_norm", "weight", weight, (dim,))
    at_bias = 0
    if bias is not None:
        check("layer_norm", "bias", bias, (dim,), weight.dtype)
        at_bias = bias.address
    out = result("layer_norm", out, x.shape, device=x.device)
    if not x.size:
        return out
    check_same_or_apart("layer_norm", "out", out, x=x)
    check_apart("layer_norm", "out", out, weight=weight, bias=bias)
    rows, parts = x.size // dim, split(x.size, x.device)
    dtype, at = weight.dtype.name, (out.address, x.address, weight.address, at_bias)
    kernels.on(x.device).layer_norm[dtype](*at, rows, dim, eps, parts)
    return out
