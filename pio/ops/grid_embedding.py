"""Embeddings of places in a grid on tensors."""

from __future__ import annotations

from math import isqrt

from pio.errors import TensorError
from pio.kernels import launcher
from pio.ops._check import check, check_float, split
from pio.ops._overlap import check_apart
from pio.ops._tensors import check_writable
from pio.tensor import Tensor

kernels = launcher.module("grid_embedding")


def add_grid_embedding(x: Tensor, table: Tensor, grid: tuple[int, int], *, first: int = 0, merge: int = 1) -> Tensor:
    """Add to each row the embedding of its place in a grid, blended of the four nearest of a learned square table.

    The table's corners are the grid's corners, so a grid of any size and form sees all of it.

    Args:
        x: float32 (n, dim), contiguous: the places from ``first`` on, block by block of merge x merge, the blocks row
            by row; behind the last place the grid begins again.
        table: float32, float16 or bfloat16 (side * side, dim), row by row.
        grid: Height and width, multiples of merge.
        first: The place of the first row.
        merge: Width of a block.

    Returns:
        ``x``.

    Raises:
        TensorError: Shapes or dtypes do not fit, the table is no square, or x is read-only.
    """
    op = "add_grid_embedding"
    check(op, "x", x, (None, None))
    check_writable(op, "x", x)
    n, dim = x.shape
    check_float(op, "table", table, (None, dim))
    side, (height, width) = isqrt(table.shape[0]), grid
    if side * side != table.shape[0] or not side:
        raise TensorError(f"{op}: table has {table.shape[0]} rows, expected a square number of them")
    if merge < 1 or first < 0 or min(grid) < 1 or height % merge or width % merge:
        raise TensorError(
            f"{op}: grid {grid} from place {first} on with merge={merge}: expected a grid of whole blocks and a place "
            "from 0 on"
        )
    check_apart(op, "x", x, table=table)
    parts = split(4 * n * dim, x.device)
    kernels.on(x.device).add_grid_embedding[table.dtype.name](
        x.address, table.address, first, n, dim, side, height, width, merge, parts
    )
    return x
