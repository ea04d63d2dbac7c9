"""Linear layers whose heads have a matrix each, and the matrices of latent attention."""

from __future__ import annotations

from pio.errors import TensorError
from pio.kernels import launcher
from pio.kernels._formats import BLOCK
from pio.ops._check import FLOATS, check_float, check_tensor, split
from pio.ops._linears import Quantizing
from pio.ops._overlap import check_apart
from pio.ops._tensors import head_strides, result, scratch_rows
from pio.ops.quantized import WORK, PackedWeight, pack, record_bytes
from pio.tensor import Tensor

kernels = launcher.module("head_linear")


def head_linear(
    x: Tensor,
    weight: Tensor | PackedWeight,
    *,
    out: Tensor | None = None,
    scratch: Tensor | None = None,
) -> Tensor:
    """Multiply each head's rows by the rows of its own matrix: ``out[t, h] = weight[h] @ x[t, h]``.

    Where the weight is packed, rows of x are quantized to int8 by groups of 32 inputs.

    Args:
        x: float32 (T, heads, k); there may be gaps between heads and tokens, as in a slice of wider heads.
        weight: float32, float16 or bfloat16 (heads, n, k), each matrix contiguous, such as those of
            ``absorbed_weights``; or from ``pack_heads``.
        out: float32 (T, heads, n); made when not given, for a packed weight with n rounded up to a multiple of 16.
            Must not share memory with x.
        scratch: uint8, at least T * heads * ``record_bytes(k)``, for the quantized rows; made when not given. Must not
            share memory with x. Not used where the weight is not packed, nor for a few rows on a GPU.

    Returns:
        float32 (T, heads, n). A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit, or ``out`` is read-only.
    """
    op = "head_linear"
    ldx, head_x = head_strides(op, "x", x)
    if x.ndim != 3:
        raise TensorError(f"{op}: x has shape {x.shape}, expected (tokens, heads, k)")
    rows, heads, k = x.shape
    if isinstance(weight, PackedWeight):
        return _packed_head_linear(x, weight, out, scratch)
    _check_matrices(op, "weight", weight, heads, k)
    n = weight.shape[1]
    out = result(op, out, (rows, heads, n), device=x.device)
    check_apart(op, "out", out, x=x, weight=weight)
    multiply = kernels.on(x.device).head_linear[weight.dtype.name]
    at = out.address, x.address, weight.address
    multiply(*at, rows, heads, n, k, ldx, head_x, weight.strides[0], x.device.threads)
    return out


def _packed_head_linear(x: Tensor, weight: PackedWeight, out: Tensor | None, scratch: Tensor | None) -> Tensor:
    op, form, (rows, heads, k) = "head_linear", weight.form.name, x.shape
    each = weight.shape[0] // max(1, heads)
    if weight.shape != (heads * each, k) or each % BLOCK:
        raise TensorError(
            f"{op}: weight has shape {weight.shape}, expected ({heads} heads x a multiple of {BLOCK}, {k}); make it "
            "with ops.pack_heads from (heads, n, k)"
        )
    if out is not None:
        check_tensor(op, "out", out)
    n = out.shape[2] if out is not None and out.ndim == 3 and -(-out.shape[2] // BLOCK) * BLOCK == each else each
    out = result(op, out, (rows, heads, n), device=x.device)
    ldx, head_x = x.strides[0], x.strides[1]
    quantizing = Quantizing.of(rows, k, x.device)
    needed = quantizing.before or scratch is not None
    records = scratch_rows(op, x, scratch, heads * record_bytes(k) if needed else 0)
    check_apart(op, "out", out, x=x, weight=weight.data, scratch=records)
    check_apart(op, "scratch", records, weight=weight.data)
    here, packed = kernels.on(x.device), weight.data.address
    if quantizing.own:
        here.quantizing_heads[form](out.address, x.address, packed, rows, heads, n, k, ldx, head_x)
    if quantizing.before:
        parts = split(WORK * x.size, x.device)
        here.quantize_heads[form](records.address, x.address, rows, heads, k, ldx, head_x, parts)
        multiply = here.quantized_head_linear[form]
        multiply(out.address, records.address, packed, rows, heads, n, weight.data.shape[1], x.device.threads)
    return out


def pack_heads(weight: Tensor, form: str) -> PackedWeight:
    """Quantize a matrix for each head, so that ``head_linear`` can take them.

    Args:
        weight: float32, float16 or bfloat16 (heads, n, k), of any strides.
        form: As in ``pack``.

    Returns:
        One packed weight of heads * n rows, where n is rounded up to a multiple of 16 by rows of zeros, so that each
        head begins with a block of its own.

    Raises:
        TensorError: Shapes or dtypes do not fit.
        NumericalError: The weight holds NaN, an infinity, or a number beyond what float16 can hold.
    """
    check_tensor("pack_heads", "weight", weight)
    if weight.ndim != 3:
        raise TensorError(f"pack_heads: weight has shape {weight.shape}, expected (heads, n, k)")
    if weight.dtype.name not in FLOATS:
        raise TensorError(f"pack_heads: weight is {weight.dtype}, expected one of {', '.join(FLOATS)}")
    heads, n, k = weight.shape
    rows, _ = packed_heads_shape(weight.shape)
    padded = Tensor.zeros((heads, rows // max(1, heads), k), weight.dtype, weight.device)
    padded[:, :n].copy_(weight)
    return pack(padded.reshape(rows, k), form)


def packed_heads_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of the matrix that ``pack_heads`` makes of matrices (heads, n, k)."""
    heads, n, k = shape
    return heads * -(-n // BLOCK) * BLOCK, k


def absorbed_weights(weight: Tensor, heads: int, key_dim: int, value_dim: int) -> tuple[Tensor, Tensor]:
    """Cut the matrix that makes keys and values from latents into what latent attention multiplies by instead.

    Of each head's key_dim + value_dim rows the first make its key, k = A c, the others its value, v = B c, of a latent
    c. As q . k = (A^T q) . c, queries are multiplied by A^T, and what attention gives for latents by B.

    Args:
        weight: float32, float16 or bfloat16 (heads * (key_dim + value_dim), rank), as checkpoints store it.
        heads: How many heads there are.
        key_dim: Width of a head's key, without the rotated part that all share.
        value_dim: Width of a head's value.

    Returns:
        A^T, (heads, rank, key_dim) of the weight's type, in new memory, as much as it is large: the stored key rows are
        not needed any more, and where they lie in a mapped file the system takes that memory back. And B,
        (heads, value_dim, rank), a view of the weight.

    Raises:
        TensorError: Shapes or dtypes do not fit.
    """
    check_float("absorbed_weights", "weight", weight, (None, None))
    if min(heads, key_dim, value_dim) < 1 or weight.shape[0] != heads * (key_dim + value_dim):
        raise TensorError(
            f"absorbed_weights: weight has shape {weight.shape}, expected ({heads} heads x ({key_dim} of a key + "
            f"{value_dim} of a value), rank); give the sizes that the model's config names"
        )
    rank = weight.shape[1]
    cut = weight.reshape(heads, key_dim + value_dim, rank)
    keys = Tensor.empty((heads, rank, key_dim), weight.dtype, weight.device).copy_(cut[:, :key_dim].transpose(0, 2, 1))
    return keys, cut[:, key_dim:]


def _check_matrices(op: str, name: str, weight: Tensor, heads: int, k: int) -> None:
    """Raise a TensorError unless weight is a contiguous matrix of k columns for each head."""
    check_tensor(op, name, weight)
    if weight.dtype.name not in FLOATS:
        raise TensorError(f"{op}: {name} is {weight.dtype}, expected one of {', '.join(FLOATS)}, or from pack_heads")
    if weight.ndim != 3 or weight.shape[0] != heads or weight.shape[2] != k:
        raise TensorError(f"{op}: {name} has shape {weight.shape}, expected ({heads}, any, {k})")
    if (k > 1 and weight.strides[2] != 1) or (weight.shape[1] > 1 and weight.strides[1] != k):
        raise TensorError(
            f"{op}: {name} has strides {weight.strides}, expected each head's matrix contiguous; make it "
            ".contiguous() first"
        )
