"""The largest elements of rows, on tensors."""

from __future__ import annotations

from pio.dtypes import int32
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.memory import step
from pio.ops._check import check, check_tensor
from pio.tensor import Tensor

kernels = launcher.module("top_k")


def top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest elements of each row and their indices, best first; among equals the lower index.

    Args:
        x: float32 (rows, n) or (n,); NaN ranks as -inf.
        k: 1 to n.

    Returns:
        Values float32 and indices int32, both (rows, k), or (k,).

    Raises:
        TensorError: Shape or dtype does not fit, or k is out of range.
    """
    step.refuse("has a kernel that is not recorded", "choose experts by ops.route; tokens are chosen behind the step")
    check_tensor("top_k", "x", x)
    if x.ndim not in (1, 2):
        raise TensorError(f"top_k: x has shape {x.shape}, expected (rows, n) or (n,)")
    check("top_k", "x", x)
    n = x.shape[-1]
    if not 1 <= k <= n:
        raise TensorError(f"top_k: k={k} is out of range, expected 1 to {n}, the length of a row")
    shape = (*x.shape[:-1], k)
    values, ids = Tensor.empty(shape, device=x.device), Tensor.empty(shape, int32, x.device)
    rows = 1 if x.device.stream is None else x.device.stream.multiprocessors  # as many are at work at once
    maxima = Tensor.empty((rows, -(-n // sizes.MAXIMA)), device=x.device)
    kernels.on(x.device).top_k_rows(values.address, ids.address, x.address, maxima.address, x.size // n, n, k)
    return values, ids
