"""Rows of tensors chosen by index."""

from __future__ import annotations

from pio.dtypes import int32, int64
from pio.errors import TensorError
from pio.kernels import jobs, launcher
from pio.memory import step
from pio.ops._check import check, check_float, check_tensor, split
from pio.ops._overlap import check_apart
from pio.ops._tensors import check_writable, result
from pio.ops.program import checked_again, checked_there
from pio.tensor import Tensor

kernels = launcher.module("gather")
MIN_COLUMNS = 64  # columns that are worth a thread of their own: a few cache lines that no other thread writes


def gather(table: Tensor, indices: Tensor, *, out: Tensor | None = None, trusted: bool = False) -> Tensor:
    """Read rows of a table as float32: ``out[i] = table[indices[i]]``.

    Args:
        table: float32, float16 or bfloat16 (rows, dim), contiguous.
        indices: int32 or int64 (n,), each from 0 to rows - 1.
        out: float32 (n, dim); made when not given. Must not share memory with table.
        trusted: Whether the caller knows that all indices are in range, in every run of a recorded step too. Nothing
            looks at them then, so a GPU's step waits for no answer; one that is out of range reads what lies there.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an index is out of range.
    """
    check_float("gather", "table", table, (None, None))
    rows, dim = table.shape
    n, wide = check_indices("gather", indices, rows, trusted=trusted)
    out = result("gather", out, (n, dim), device=table.device)
    check_apart("gather", "out", out, table=table, indices=indices)
    parts = split(n * dim, table.device)
    dtype, at = table.dtype.name, (out.address, table.address, indices.address)
    kernels.on(table.device).gather[dtype](*at, n, dim, wide, parts)
    return out


def place_rows(out: Tensor, rows: Tensor) -> Tensor:
    """Overwrite rows by others that lie anywhere: ``out[i]`` by what ``rows[i]`` is the address of, unless that is 0.

    Which rows is seen when it runs, so a recorded step takes other ones each time. Whoever writes the addresses keeps
    their memory, float32 (dim,) each, as ``Batch.place`` does; nothing here can check it.

    Args:
        out: float32 (n, dim), contiguous. Must share memory with none of the rows.
        rows: int64 (n,).

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    n, dim = _check_rows("place_rows", out, rows)
    kernels.on(out.device).place_rows(out.address, rows.address, n, dim, split(n * dim, out.device))
    return out


def add_rows(out: Tensor, rows: Tensor) -> Tensor:
    """Add to rows what lies anywhere: to ``out[i]`` what ``rows[i]`` is the address of, unless that is 0.

    Args:
        out: float32 (n, dim), contiguous. Must share memory with none of the rows.
        rows: int64 (n,), as for ``place_rows``.

    Returns:
        ``out``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    n, dim = _check_rows("add_rows", out, rows)
    kernels.on(out.device).add_rows(out.address, rows.address, n, dim, split(n * dim, out.device))
    return out


def _check_rows(op: str, out: Tensor, rows: Tensor) -> tuple[int, int]:
    """Check rows and where others lie; return how many and how long they are."""
    check(op, "out", out, (None, None))
    check_writable(op, "out", out)
    n, dim = out.shape
    check(op, "rows", rows, (n,), int64)
    check_apart(op, "out", out, rows=rows)
    return n, dim


def scatter_add(out: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    """Add rows to the rows of a table, in place: ``out[indices[i]] += values[i]`` for i = 0, 1, ...

    Args:
        out: float32 (rows, dim), contiguous.
        indices: int32 or int64 (n,), each from 0 to rows - 1; one that comes twice adds up in the order of i.
        values: float32 (n, dim), contiguous. Must not share memory with out.

    Returns:
        ``out``. Its bits do not depend on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an index is out of range.
    """
    return _scatter_add("scatter_add", "values", out, indices, values, None)


def scatter_add_by_index(out: Tensor, indices: Tensor, rows: Tensor, scales: Tensor | None = None) -> Tensor:
    """Add scaled rows to the rows of a table, in place: ``out[indices[i]] += scales[i] * rows[i]``.

    It puts back what ``gather_by_value`` took out: the outputs of one expert, weighted by the router.

    Args:
        out: float32 (rows, dim), contiguous.
        indices: int32 or int64 (n,), each from 0 to rows - 1; one that comes twice adds up in the order of i.
        rows: float32 (n, dim), contiguous. Must not share memory with out.
        scales: float32 (n,), or None for 1.

    Returns:
        ``out``. Its bits do not depend on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an index is out of range.
    """
    return _scatter_add("scatter_add_by_index", "rows", out, indices, rows, scales)


def _scatter_add(op: str, name: str, out: Tensor, indices: Tensor, x: Tensor, scales: Tensor | None) -> Tensor:
    check(op, "out", out, (None, None))
    check_writable(op, "out", out)
    rows, dim = out.shape
    n, wide = check_indices(op, indices, rows)
    check(op, name, x, (n, dim))
    at_scales = 0
    if scales is not None:
        check(op, "scales", scales, (n,))
        at_scales = scales.address
    check_apart(op, "out", out, indices=indices, scales=scales, **{name: x})
    parts = min(split(n * dim, out.device), max(1, dim // MIN_COLUMNS))
    kernels.on(out.device).scatter_add(out.address, indices.address, x.address, at_scales, n, dim, wide, parts)
    return out


def gather_by_value(x: Tensor, keys: Tensor, value: int) -> tuple[Tensor, Tensor]:
    """Take the rows whose key has a value, in order: the tokens that a router sends to one expert.

    Args:
        x: float32, float16 or bfloat16 (n, dim), contiguous.
        keys: int32 or int64 (n,).
        value: The key wanted.

    Returns:
        The rows, float32 (count, dim), and their positions in x, int32 (count,).

    Raises:
        TensorError: Shapes or dtypes do not fit, or the value is no int64.
    """
    step.refuse("chooses how many rows there are", step.READS)
    check_float("gather_by_value", "x", x, (None, None))
    wide = check_integers("gather_by_value", "keys", keys)
    n = x.shape[0]
    check("gather_by_value", "keys", keys, (n,), None)
    if not -(2**63) <= value < 2**63:
        raise TensorError(f"gather_by_value: value {value} is no int64, as keys are")
    check_apart("gather_by_value", "x", x, keys=keys)
    here, found = kernels.on(x.device), keys.address
    if x.device.stream is None:
        count = here.count_value(found, n, value, wide)
    else:
        counted = Tensor.empty((1,), int64, x.device)
        here.count_value(counted.address, found, n, value, wide)
        count = counted.item()
    indices = Tensor.empty((count,), int32, x.device)
    here.find_value(indices.address, found, n, value, wide)
    return gather(x, indices), indices


def check_integers(op: str, name: str, x: Tensor) -> int:
    """Return whether integers are int64.

    Raises:
        TensorError: They are neither int32 nor int64.
    """
    check_tensor(op, name, x)
    if x.dtype is not int32 and x.dtype is not int64:
        raise TensorError(f'{op}: {name} is {x.dtype}, expected int32 or int64; convert it with .astype("int32")')
    return int(x.dtype is int64)


def check_indices(op: str, indices: Tensor, rows: int, *, trusted: bool = False) -> tuple[int, int]:
    """Return how many indices there are and whether they are int64; trusted ones are not read.

    Raises:
        TensorError: They are not contiguous integers (n,) from 0 to rows - 1.
    """
    wide = check_integers(op, "indices", indices)
    check(op, "indices", indices, (None,), None)
    n = indices.shape[0]
    if trusted:
        return n, wide

    def explain(bad: int) -> TensorError:
        with step.paused():
            return TensorError(f"{op}: indices[{bad}] is {indices[bad].item()}, expected 0 to {rows - 1}")

    at, device = indices.address, indices.device
    if device.stream is not None:
        checked_there(kernels.on(device).stop_outside, (at, n, wide, rows), explain, device)
        return n, wide
    if not jobs.is_listing():  # it takes a kernel that may have to be compiled
        bad = kernels.first_outside(at, n, wide, rows)
        if bad >= 0:
            raise explain(bad)
    checked_again(kernels.stop_outside, (at, n, wide, rows), explain)
    return n, wide
