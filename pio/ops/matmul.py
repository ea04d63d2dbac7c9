"""Matrix products of tensors."""

from __future__ import annotations

from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check, check_float, check_tensor, split
from pio.ops._overlap import check_apart
from pio.ops._tensors import result
from pio.tensor import Tensor

kernels = launcher.module("matmul")


def matmul(a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Multiply matrices: ``a @ b``.

    Weights stored as rows of outputs, as in checkpoints, go through ``linear``, which is faster.

    Args:
        a: float32 (m, k) or (batch, m, k), contiguous.
        b: float32, float16 or bfloat16 (k, n) or (batch, k, n), contiguous.
        out: float32 (m, n) or (batch, m, n); made when not given. Must not share memory with a or b.

    Returns:
        ``out``. Sums in float32, in the order of k. A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, a tensor is strided, or out shares memory with an input.
    """
    check_tensor("matmul", "a", a)
    if len(a.shape) not in (2, 3):
        raise TensorError(f"matmul: a has shape {a.shape}, expected (m, k) or (batch, m, k)")
    *outer, m, k = a.shape
    check("matmul", "a", a)
    check_float("matmul", "b", b, (*outer, k, None))
    n = b.shape[-1]
    out = result("matmul", out, (*outer, m, n), device=a.device)
    check_apart("matmul", "out", out, a=a, b=b)
    if not out.size:
        return out
    batch, dtype = outer[0] if outer else 1, b.dtype.name
    parts = max(
        1, min(split(batch * m * n * k // 8, a.device), max(batch, m // sizes.MATMUL_ROWS, n // sizes.MATMUL_PANEL))
    )
    kernels.on(a.device).matmul[dtype](out.address, a.address, b.address, batch, m, k, n, parts)
    return out
