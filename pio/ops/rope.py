"""Rotary position embedding on tensors."""

from __future__ import annotations

from functools import partial

from pio.dtypes import int32
from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_float, check_tensor, split
from pio.ops._overlap import check_apart, check_same_device, check_same_or_apart
from pio.ops._record import record
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
    rows, heads, dim = _check_heads("rope", "x", x)
    check_writable("rope", "x", x)
    half = _check_angles("rope", cos, sin, rows, dim)
    check_apart("rope", "x", x, cos=cos, sin=sin)
    apart = head_strides("rope", "x", x)
    shape = record(heads, 0, dim, half, *apart, *apart, 0, 0, int(interleaved), 0, 0.0, device=x.device)
    at = x.address, x.address, 0, 0, 0, cos.address, sin.address
    kernels.on(x.device).qk_norm_rope["float32"](*at, rows, shape.address, split(x.size, x.device))
    return x


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    norms: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    zero_centred: bool = False,
    interleaved: bool = False,
    out_q: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys as ``rope`` does, after ``rms_norm`` of each head where there are weights; all at once.

    Args:
        q: float32 (T, heads, head_dim); there may be gaps between tokens and between heads, as where each head's gate
            follows its query.
        k: float32 (T, kv_heads, head_dim), gaps allowed; overwritten.
        cos: float32 (T, half), 2 * half <= head_dim; from ``rope_table``.
        sin: float32 (T, half).
        norms: Weights of the norms of queries and of keys, float32, float16 or bfloat16 (head_dim,); without them heads
            are only rotated.
        eps: Added to the mean square.
        zero_centred: Scale by ``1 + weight``.
        interleaved: Rotate the pairs (2 i, 2 i + 1) instead of (i, i + half).
        out_q: Where the queries go, float32 of q's shape, gaps allowed; in place when not given.

    Returns:
        Queries and keys, with the bits of the two operations one after the other.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit.
    """
    op, out = "qk_norm_rope", q if out_q is None else out_q
    if norms is not None and norms[0].dtype is not norms[1].dtype:  # a kernel is made for one type of weights
        none = k[:, :0]
        turn = partial(qk_norm_rope, cos=cos, sin=sin, eps=eps, zero_centred=zero_centred, interleaved=interleaved)
        turn(q, none, norms=(norms[0], norms[0]), out_q=out)
        return out, turn(k, none, norms=(norms[1], norms[1]))[0]
    rows, heads, dim = _check_heads(op, "q", q)
    check_writable(op, "q" if out is q else "out_q", out)
    _check_heads(op, "k", k, (rows, None, dim))
    check_writable(op, "k", k)
    half = _check_angles(op, cos, sin, rows, dim)
    q_norm, k_norm = norms or (None, None)
    if q_norm is not None and k_norm is not None:
        check_float(op, "norms[0]", q_norm, (dim,))
        check_float(op, "norms[1]", k_norm, (dim,))
    check_same_or_apart(op, "out_q", out, q=q)
    check_apart(op, "out_q", out, k=k, cos=cos, sin=sin, q_norm=q_norm, k_norm=k_norm)
    check_apart(op, "k", k, q=q, cos=cos, sin=sin, q_norm=q_norm, k_norm=k_norm)
    apart = *head_strides(op, "out_q", out, q.shape), *head_strides(op, "q", q), *head_strides(op, "k", k)
    sizes = heads, k.shape[1], dim, half, *apart, int(interleaved), int(zero_centred), float(eps)
    weights = [0 if weight is None else weight.address for weight in (q_norm, k_norm)]
    at = out.address, q.address, k.address, *weights, cos.address, sin.address
    shape, parts = record(*sizes, device=q.device), split(q.size + k.size, q.device)
    kernel = kernels.on(q.device).qk_norm_rope["float32" if q_norm is None else q_norm.dtype.name]
    kernel(*at, rows, shape.address, parts)
    return out, k


def _check_heads(op: str, name: str, x: Tensor, shape: tuple[int | None, ...] = (None, None, None)) -> tuple[int, ...]:
    """Check heads of tokens; return how many of each, and their width."""
    check_tensor(op, name, x)
    if len(x.shape) != 3 or any(wanted not in (None, n) for wanted, n in zip(shape, x.shape, strict=True)):
        wanted = ", ".join(f"{n or other}" for n, other in zip(shape, ("tokens", "heads", "head_dim"), strict=True))
        raise TensorError(f"{op}: {name} has shape {x.shape}, expected ({wanted})")
    head_strides(op, name, x)
    return x.shape


def _check_angles(op: str, cos: Tensor, sin: Tensor, rows: int, dim: int) -> int:
    """Check the rotations of tokens whose heads have that width; return how many pairs turn."""
    check(op, "cos", cos, (rows, None))
    check(op, "sin", sin, cos.shape)
    half = cos.shape[1]
    if 2 * half > dim:
        raise TensorError(f"{op}: cos has {half} angles a token, expected at most head_dim / 2 = {dim // 2}")
    return half
