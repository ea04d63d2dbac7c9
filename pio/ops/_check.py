"""Checks that every operation shares, and how its work is split."""

from __future__ import annotations

from pio.device import Device
from pio.dtypes import DType, float32
from pio.errors import TensorError
from pio.tensor import Tensor

FLOATS = ("float32", "float16", "bfloat16")
MIN_PART = 1 << 15  # elements that are worth a thread of their own


def check_tensor(op: str, name: str, x: object) -> None:
    """Raise a TensorError unless x is a tensor."""
    if not isinstance(x, Tensor):
        raise TensorError(
            f"{op}: {name} is a {type(x).__name__}, expected a pio.Tensor; make one with Tensor.from_list, or with "
            "Tensor.from_buffer from an array"
        )


def check(
    op: str, name: str, x: Tensor, shape: tuple[int | None, ...] | None = None, dtype: DType | None = float32
) -> None:
    """Raise a TensorError unless x is contiguous and has this shape (None matches any size) and dtype (None: any)."""
    check_tensor(op, name, x)
    if dtype is not None and x.dtype is not dtype:
        raise TensorError(f"{op}: {name} is {x.dtype}, expected {dtype}; convert it with .astype({str(dtype)!r})")
    if shape is not None and shape != x.shape and not _matches(shape, x.shape):
        wanted = ", ".join("any" if a is None else str(a) for a in shape)
        raise TensorError(f"{op}: {name} has shape {x.shape}, expected ({wanted})")
    if not x.is_contiguous:
        raise TensorError(f"{op}: {name} is a strided view; make it .contiguous() first")


def _matches(wanted: tuple[int | None, ...], found: tuple[int, ...]) -> bool:
    return len(wanted) == len(found) and all(a is None or a == b for a, b in zip(wanted, found, strict=True))


def check_float(op: str, name: str, x: Tensor, shape: tuple[int | None, ...]) -> None:
    """As ``check``, for a weight of any floating type."""
    check(op, name, x, shape, None)
    if x.dtype.name not in FLOATS:
        raise TensorError(f"{op}: {name} is {x.dtype}, expected one of {', '.join(FLOATS)}")


def split(elements: int, device: Device) -> int:
    """Return over how many threads of a device to split work on that many elements: as many as are worth it."""
    return max(1, min(device.threads, elements // MIN_PART))


def check_gpu_limit(op: str, what: str, found: int, most: int, device: Device) -> None:
    """Raise a TensorError if a size is more than kernels of a GPU take; those of the CPU take any.

    Args:
        op: Operation.
        what: Name of the size.
        found: The size.
        most: The largest that there is a kernel for.
        device: Where the operation runs.
    """
    if device.stream is not None and found > most:
        raise TensorError(
            f"{op}: {what} is {found}, of which a GPU takes {most} at most; move the tensors by .to('cpu')"
        )
