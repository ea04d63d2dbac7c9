"""Rotary position embedding on tensors."""

from __future__ import annotations

from pio.dtypes import int32
from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_tensor, split
from pio.ops._overlap import check_apart, check_same_device
from pio.ops._tensors import check_writable, head_strides, result
from pio.ops.gather import check_indices
from pio.tensor import Tensor

kernels = launcher.module("rope")


def rope_table(
    positions: Tensor,
    inv_freq: Tensor,
    *,
    axes: Tensor | None = None,
    scale: float = 1.0,
    trusted: bool = False,
    out_cos: Tensor | None = None,
    out_sin: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the rotations of positions: cosine and sine of ``float32(position) * inv_freq``, times scale.

    Args:
        positions: int32 (T,), or (n, T) where a token has a position on each of n axes, as in pictures.
        inv_freq: float32 (half,), radians a position.
        axes: int32 (half,), which axis turns each pair, from 0 to n - 1; only where there are several.
        scale: Factor on both tables.
        trusted: Whether the caller knows that all numbers of ``axes`` are in range, as for ``ops.gather``.
        out_cos: float32 (T, half); made when not given.
        out_sin: float32 (T, half); made when not given.

    Returns:
        Cosines and sines, float32 (T, half). The angle is rounded to float32, as in the models' training; its
        cosine and sine are then exact to the last bit of a float32.

    Raises:
        TensorError: Shapes or dtypes do not fit, or there is no such axis.
    """
    check("rope_table", "inv_freq", inv_freq, (None,))
    half, at_axes, stride = inv_freq.shape[0], 0, 0
    if axes is None:
        check("rope_table", "positions", positions, (None,), int32)
    else:
        stride = _check_axes(positions, axes, half, trusted)
        check_same_device("rope_table", "positions", positions, "axes", axes)
        at_axes = axes.address
    rows = positions.shape[-1]
    cos = result("rope_table", out_cos, (rows, half), device=positions.device, name="out_cos")
    sin = result("rope_table", out_sin, (rows, half), device=positions.device, name="out_sin")
    check_apart("rope_table", "out_cos", cos, positions=positions, inv_freq=inv_freq, out_sin=sin)
    check_apart("rope_table", "out_sin", sin, positions=positions, inv_freq=inv_freq)
    at = cos.address, sin.address, positions.address, inv_freq.address, at_axes, stride
    parts = split(16 * rows * half, cos.device)  # a cosine costs as much as many sums
    kernels.on(cos.device).rope_table(*at, rows, half, float(scale), parts)
    return cos, sin


def _check_axes(positions: Tensor, axes: Tensor, half: int, trusted: bool) -> int:
    """Check positions on several axes, and which of them turns each pair; return from one axis to the next."""
    check_tensor("rope_table", "positions", positions)
    if positions.dtype is not int32 or positions.ndim != 2 or (positions.shape[1] > 1 and positions.strides[1] != 1):
        raise TensorError(
            f"rope_table: positions is {positions.dtype} {positions.shape}, expected int32 (axes, tokens), the tokens "
            "of an axis side by side"
        )
    check("rope_table", "axes", axes, (half,), int32)
    check_indices("rope_table: axes", axes, positions.shape[0], trusted=trusted)
    return positions.strides[0]


def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """Rotate the first 2 * half elements of every head in place, by the angles of its token.

    Args:
        x: float32 (T, heads, head_dim); there may be gaps between tokens and between heads, as in a slice of wider
            heads.
        cos: float32 (T, half), 2 * half <= head_dim; from ``rope_table``.
        sin: float32 (T, half).
        interleaved: Rotate the pairs (2 i, 2 i + 1) instead of (i, i + half).

    Returns:
        x.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit.
    """
    check_tensor("rope", "x", x)
    if len(x.shape) != 3:
        raise TensorError(f"rope: x has shape {x.shape}, expected (tokens, heads, head_dim)")
    rows, heads, dim = x.shape
    ldx, head_x = head_strides("rope", "x", x)
    check_writable("rope", "x", x)
    check("rope", "cos", cos, (rows, None))
    check("rope", "sin", sin, cos.shape)
    check_apart("rope", "x", x, cos=cos, sin=sin)
    half = cos.shape[1]
    if 2 * half > dim:
        raise TensorError(f"rope: cos has {half} angles a token, expected at most head_dim / 2 = {dim // 2}")
    parts = split(x.size, x.device)
    at = x.address, cos.address, sin.address
    kernels.on(x.device).rope(*at, rows, heads, head_x, half, ldx, int(interleaved), parts)
    return x
