"""Whether a result lies in memory that is still to be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from pio.errors import DeviceError, TensorError
from pio.memory.layout import span
from pio.tensor import Tensor


def check_apart(op: str, name: str, out: Tensor, /, **inputs: Tensor | None) -> None:
    """Raise a TensorError where a result shares memory with an input, a DeviceError where they are on two devices."""
    device = out.storage.device
    for other, x in inputs.items():
        if x is None:
            continue
        if x.storage.device is not device:
            check_same_device(op, name, out, other, x)
        if overlap(out, x):
            raise TensorError(f"{op}: {name} shares memory with {other}; give another tensor or none for {name}")


def check_outs_apart(op: str, outs: Sequence[Tensor]) -> None:
    """Raise a TensorError where two results of one job share memory."""
    for i, j in combinations(range(len(outs)), 2):
        check_apart(op, f"outs[{j}]", outs[j], **{f"outs[{i}]": outs[i]})


def check_same_or_apart(op: str, name: str, out: Tensor, **inputs: Tensor) -> None:
    """Raise a TensorError where a result shares memory with an input, but for being that very input.

    Raises:
        DeviceError: They are on two devices.
    """
    device = out.storage.device
    for other, x in inputs.items():
        if x.storage.device is not device:
            check_same_device(op, name, out, other, x)
        if overlap(out, x) and not _same(out, x):
            raise TensorError(
                f"{op}: {name} overlaps {other} without being it: elements would be read after they are "
                f"overwritten; give {other} itself, another tensor or none"
            )


def check_same_device(op: str, name: str, one: Tensor, other_name: str, other: Tensor) -> None:
    """Raise a DeviceError where two tensors lie on different devices."""
    here, there = one.storage.device, other.storage.device
    if here != there:
        raise DeviceError(
            f"{op}: {name} lies on {here} and {other_name} on {there}; an operation runs on one device: bring both to "
            f"one, such as by {other_name}.to({str(here)!r})"
        )


def overlap(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors share memory; columns of the same rows, side by side, do not."""
    (low, high), (begin, end) = _bytes(one), _bytes(other)
    return low < end and begin < high and not _side_by_side(one, other)


def _bytes(x: Tensor) -> tuple[int, int]:
    low, high = span(x.shape, x.strides)
    return x.address + low * x.dtype.itemsize, x.address + high * x.dtype.itemsize


def _same(one: Tensor, other: Tensor) -> bool:
    steps = zip(one.shape, one.strides, other.strides, strict=True)
    return one.address == other.address and all(n == 1 or a == b for n, a, b in steps)


def _side_by_side(one: Tensor, other: Tensor) -> bool:
    if not one.shape or not other.shape or one.dtype.itemsize != other.dtype.itemsize:
        return False
    stride = one.strides[0]
    rows = [span(x.shape[1:], x.strides[1:]) for x in (one, other)]
    if stride <= 0 or other.strides[0] != stride or any(low for low, _ in rows):
        return False
    distance = (other.address - one.address) // one.dtype.itemsize % stride
    return rows[0][1] <= distance and distance + rows[1][1] <= stride
