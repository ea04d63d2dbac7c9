"""Searches through whole tensors."""

from __future__ import annotations

from pio.dtypes import int64
from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import FLOATS, check, split
from pio.tensor import Tensor

kernels = launcher.module("reduce")


def first_non_finite(t: Tensor) -> int | None:
    """Return the position of the first NaN or infinity in row-major order, or None where there is none.

    Args:
        t: float32, float16 or bfloat16, any shape, contiguous.

    Raises:
        TensorError: t is strided, or not of a floating type.
    """
    check("first_non_finite", "t", t, None, None)
    if t.dtype.name not in FLOATS:
        raise TensorError(f"first_non_finite: t is {t.dtype}, expected one of {', '.join(FLOATS)}")
    n, parts = t.size, split(t.size, t.device)
    found = Tensor.full((parts,), n, int64, t.device)  # of a GPU one number, which it lowers
    kernels.on(t.device).first_non_finite[t.dtype.name](found.address, t.address, n, parts)
    first = min(found.tolist())
    return first if first < n else None
