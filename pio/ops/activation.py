"""Activation functions on tensors."""

from __future__ import annotations

from pio.errors import TensorError
from pio.kernels import activation as kernels
from pio.ops._check import split
from pio.ops._tensors import check_writable, row_stride
from pio.tensor import Tensor


def swiglu(gate: Tensor, up: Tensor, *, out: Tensor | None = None, threads: int | None = None) -> Tensor:
    """Gate the up projection: ``silu(gate) * up``.

    Args:
        gate: float32 (rows, n); there may be gaps between rows, as in one half of a fused projection.
        up: float32 (rows, n), gaps allowed.
        out: float32 (rows, n), gaps allowed; made when not given. It may be gate or up.
        threads: Over how many threads to split the rows; as many as are worth it by default.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit.
    """
    if len(gate.shape) != 2:
        raise TensorError(f"swiglu: gate has shape {gate.shape}, expected (rows, n)")
    if out is None:
        out = Tensor.empty(gate.shape)
    check_writable("swiglu", "out", out)
    ldg, ldu = row_stride("swiglu", "gate", gate), row_stride("swiglu", "up", up, gate.shape)
    ldo = row_stride("swiglu", "out", out, gate.shape)
    rows, n = gate.shape
    parts = split(4 * rows * n, threads)  # an exponential costs as much as some sums
    at = out.address, gate.address, up.address
    if parts == 1:
        kernels.swiglu_rows(*at, 0, rows, n, ldo, ldg, ldu)
    else:
        kernels.swiglu(*at, rows, n, ldo, ldg, ldu, parts)
    return out
