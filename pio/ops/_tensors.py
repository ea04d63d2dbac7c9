"""Results to write into, and rows to walk through, for operations on tensors."""

from __future__ import annotations

import threading

from pio.device import Device
from pio.dtypes import DType, float32, uint8
from pio.errors import TensorError
from pio.ops._check import check, check_tensor
from pio.ops._overlap import check_apart
from pio.tensor import Tensor


class _Noted(threading.local):
    written: list[Tensor] | None = None  # what operations of this thread were about to write, where somebody asks


noted = _Noted()


def result(
    op: str,
    out: Tensor | None,
    shape: tuple[int, ...],
    dtype: DType = float32,
    *,
    device: Device,
    name: str = "out",
) -> Tensor:
    """Return the tensor to write into, made on that device when not given.

    Raises:
        TensorError: It has another shape or dtype, is a strided view or is read-only.
    """
    if out is None:
        return Tensor.empty(shape, dtype, device=device)
    check(op, name, out, shape, dtype)
    check_writable(op, name, out)
    return out


def scratch_rows(op: str, x: Tensor, scratch: Tensor | None, row_bytes: int) -> Tensor:
    """Return the bytes to put another form of the rows of x into, made when not given.

    Raises:
        TensorError: They are too few, no vector of bytes, read-only or where x is.
    """
    needed = x.shape[0] * row_bytes
    if scratch is None:
        return Tensor.empty((needed,), uint8, device=x.device)
    check(op, "scratch", scratch, (None,), uint8)
    if scratch.size < needed:
        raise TensorError(f"{op}: scratch has {scratch.size} bytes, expected at least {needed}")
    check_writable(op, "scratch", scratch)
    check_apart(op, "scratch", scratch, x=x)
    return scratch


def check_writable(op: str, name: str, x: Tensor) -> None:
    """Raise a TensorError where writing is forbidden; called for all that an operation writes."""
    check_tensor(op, name, x)
    if x.storage.readonly:
        raise TensorError(f"{op}: {name} is read-only memory; write into a copy, such as {name}.clone()")
    if noted.written is not None:
        noted.written.append(x)


def check_last_axis(op: str, name: str, x: Tensor) -> int:
    """Return the length of the last axis of a contiguous float32 tensor.

    Raises:
        TensorError: There is no axis, or x is strided or of another dtype.
    """
    check(op, name, x)
    if not x.shape:
        raise TensorError(f"{op}: {name} has shape (), expected at least one axis")
    return x.shape[-1]


def row_stride(op: str, name: str, x: Tensor, shape: tuple[int, ...] | None = None) -> int:
    """Return how far the tokens of float32 x (tokens, ..., dim) lie apart, in elements.

    Each token is contiguous; there may be gaps between tokens: x may be a slice of wider rows.

    Raises:
        TensorError: Another dtype, shape or order of elements.
    """
    check_tensor(op, name, x)
    if x.dtype is not float32:
        raise TensorError(f'{op}: {name} is {x.dtype}, expected float32; convert it with .astype("float32")')
    if shape is not None and x.shape != shape:
        raise TensorError(f"{op}: {name} has shape {x.shape}, expected {shape}")
    step = 1
    for n, stride in zip(x.shape[:0:-1], x.strides[:0:-1], strict=True):
        if n != 1 and stride != step:
            raise TensorError(
                f"{op}: {name} has strides {x.strides}, expected contiguous tokens of shape {x.shape[1:]}; "
                "make it .contiguous() first"
            )
        step *= n
    return x.strides[0] if x.shape[0] > 1 else step


def head_strides(op: str, name: str, x: Tensor, shape: tuple[int, ...] | None = None) -> tuple[int, int]:
    """Return how far the tokens and the heads of float32 x (tokens, heads, dim) lie apart, in elements.

    Each head is contiguous; there may be gaps between heads and between tokens. x may also be (rows, dim), which is
    one head a token.

    Raises:
        TensorError: Another dtype, shape or order of elements.
    """
    check_tensor(op, name, x)
    if x.dtype is not float32:
        raise TensorError(f'{op}: {name} is {x.dtype}, expected float32; convert it with .astype("float32")')
    if len(x.shape) not in (2, 3) or (shape is not None and x.shape != shape):
        raise TensorError(f"{op}: {name} has shape {x.shape}, expected {shape or '(tokens, heads, dim)'}")
    if x.shape[-1] != 1 and x.strides[-1] != 1:
        raise TensorError(
            f"{op}: {name} has strides {x.strides}, expected contiguous heads of {x.shape[-1]}; "
            "make it .contiguous() first"
        )
    return x.strides[0], x.strides[1] if len(x.shape) == 3 else x.shape[-1]
