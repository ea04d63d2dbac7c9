"""Rows of tensors chosen by index."""

from __future__ import annotations

from pio.dtypes import int32, int64
from pio.errors import TensorError
from pio.kernels import gather as kernels
from pio.ops._check import check, check_float, split
from pio.ops._tensors import result
from pio.tensor import Tensor


def gather(table: Tensor, indices: Tensor, *, out: Tensor | None = None, threads: int | None = None) -> Tensor:
    """Read rows of a table as float32: ``out[i] = table[indices[i]]``.

    Args:
        table: float32, float16 or bfloat16 (rows, dim), contiguous.
        indices: int32 or int64 (n,), each from 0 to rows - 1.
        out: float32 (n, dim); made when not given. Must not share memory with table.
        threads: Over how many threads to split the indices; as many as are worth it by default.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an index is out of range.
    """
    check_float("gather", "table", table, (None, None))
    rows, dim = table.shape
    n, wide = check_indices("gather", indices, rows)
    out = result("gather", out, (n, dim))
    parts = split(n * dim, threads)
    kind, at = table.dtype.name, (out.address, table.address, indices.address)
    if parts == 1:
        kernels.gather_rows[kind](*at, 0, n, dim, wide)
    else:
        kernels.gather[kind](*at, n, dim, wide, parts)
    return out


def check_indices(op: str, indices: Tensor, rows: int) -> tuple[int, int]:
    """Return how many indices there are and whether they are int64.

    Raises:
        TensorError: They are not contiguous integers (n,) from 0 to rows - 1.
    """
    if indices.dtype is not int32 and indices.dtype is not int64:
        raise TensorError(f'{op}: indices are {indices.dtype}, expected int32 or int64; convert by .astype("int32")')
    check(op, "indices", indices, (None,), None)
    n, wide = indices.shape[0], int(indices.dtype is int64)
    bad = kernels.first_outside(indices.address, n, wide, rows)
    if bad >= 0:
        raise TensorError(f"{op}: indices[{bad}] is {indices[bad].item()}, expected 0 to {rows - 1}")
    return n, wide
