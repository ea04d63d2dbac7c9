"""Copying and filling tensors: whole runs of memory directly, everything else by a compiled loop of ``pio.ops``.

In a step that is recorded every copy goes by ``pio.ops``, which is recorded with it.
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import TYPE_CHECKING, Any, Final

from pio.device import Device, default_device
from pio.errors import TensorError
from pio.memory import elements, layout, step
from pio.memory.compiled import operations
from pio.memory.storage import Storage

if TYPE_CHECKING:
    from pio.memory.layout import Shape
    from pio.memory.view import View

_MAX_RUNS: Final = 256  # a copy in fewer pieces goes by memmove; more are worth a compiled loop


def copy(to: View, source: View) -> None:
    """Overwrite the elements of ``to`` with those of ``source``, converted where the types differ.

    Shapes: to, source the same, any strides; they may overlap, or lie on different devices.

    Raises:
        TensorError: The shapes differ, or ``to`` is read-only.
        RecordingError: This thread records a step, and they lie on different devices.
    """
    _check_writable(to)
    if source.shape != to.shape:
        raise TensorError(f"cannot copy shape {source.shape} into shape {to.shape}; shapes must be equal")
    if source.storage.device != to.storage.device:
        _copy_across(to, source)
        return
    length, outer = layout.runs(to.shape, to.strides, source.strides)
    count, on_gpu = prod(outer), to.storage.device.stream is not None
    direct = source.dtype is to.dtype and count <= _MAX_RUNS and step.local.step is None
    # one memmove alone copes with overlap
    if _overlap(to, source) and not (direct and count == 1 and not on_gpu):
        source = source.clone()
        length, outer = layout.runs(to.shape, to.strides, source.strides)
        count = prod(outer)
        direct = direct and count <= _MAX_RUNS
    if direct:
        _copy_runs(to, source, length, outer)
    else:
        operations().copy(to, source)


def to_device(source: View, device: Device) -> View:
    """Return a row-major copy on another device.

    Raises:
        RecordingError: This thread records a step.
        OutOfMemoryError: There is too little memory.
    """
    what = f"a {source.dtype} tensor of shape {source.shape}"
    step.refuse(f"copies it to {device}", step.WRITES if device.stream is not None else step.READS)
    storage = Storage.allocate(source.nbytes, what=what, device=device)
    made = type(source)(storage, storage.address, source.dtype, source.shape, layout.row_major(source.shape))
    _copy_across(made, source)
    return made


def _copy_across(to: View, source: View) -> None:
    """Copy from one device to another: whole stretches of memory, so that strides are walked where they lie."""
    there, here = to.storage.device, source.storage.device
    step.refuse(f"copies from {here} to {there}", step.WRITES if there.stream is not None else step.READS)
    if there.stream is not None and here.stream is not None:
        copy(to, to_device(source, default_device()))  # between GPUs by way of this process
        return
    if not (to.is_contiguous and to.dtype is source.dtype):
        copy(to, to_device(source, there))
        return
    if not source.is_contiguous:
        _, outer = layout.runs(source.shape, source.strides, layout.row_major(source.shape))
        source = source.clone() if here.stream is None or prod(outer) <= _MAX_RUNS else _span(source)
        if not source.is_contiguous:
            copy(to, source)  # the span lies where ``to`` does
            return
    if there.stream is not None:
        there.stream.copy_in(to.address, source.address, to.nbytes)
    elif here.stream is not None:
        here.stream.copy_out(to.address, source.address, to.nbytes)


def _span(source: View) -> View:
    """Return elements of a GPU with the same strides in memory of the CPU, gaps between them included."""
    stream, size = source.storage.device.stream, source.dtype.itemsize
    assert stream is not None
    low, high = layout.span(source.shape, source.strides)
    storage = Storage.allocate((high - low) * size, what="elements with the gaps between them")
    stream.copy_out(storage.address, source.address + low * size, storage.nbytes)
    return type(source)(storage, storage.address - low * size, source.dtype, source.shape, source.strides)


def to_list(source: View) -> Any:
    """Return elements as nested lists of Python numbers, or as one number for shape ``()``."""
    if source.storage.device.stream is not None:
        source = to_device(source, default_device())
    low, high = layout.span(source.shape, source.strides)
    size = source.dtype.itemsize
    view = source.storage.memoryview(source.address + low * size, (high - low) * size)
    data = elements.view_as(view, source.dtype)
    return elements.gather(data, -low, source.shape, source.strides, source.dtype)


def write(to: View, data: bytes) -> None:
    """Overwrite the bytes of contiguous elements."""
    stream = to.storage.device.stream
    if stream is None:
        ctypes.memmove(to.address, data, len(data))
    elif data:
        stream.copy_in(to.address, ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0, len(data))


def fill(to: View, value: float) -> None:
    """Set every element of ``to`` to ``value``.

    Raises:
        TensorError: ``to`` is read-only, or its type cannot hold the value.
        RecordingError: This thread records a step.
    """
    step.refuse("writes numbers", step.WRITES)
    _check_writable(to)
    one, stream = elements.encode([value], to.dtype), to.storage.device.stream
    if not to.is_contiguous:
        cell = Storage.allocate(len(one), what="one element", device=to.storage.device)
        element = type(to)(cell, cell.address, to.dtype, to.shape, (0,) * to.ndim)
        write(type(to)(cell, cell.address, to.dtype, (), ()), one)
        copy(to, element)
        return
    total = to.nbytes
    if total == 0:
        return
    if one.count(one[0]) == len(one):
        (ctypes.memset if stream is None else stream.fill)(to.address, one[0], total)
        return
    write(to, one)
    done = len(one)
    while done < total:  # each pass doubles what is filled
        more = min(done, total - done)
        (ctypes.memmove if stream is None else stream.copy)(to.address + done, to.address, more)
        done += more


def _copy_runs(to: View, source: View, length: int, outer: Shape) -> None:
    size, stream = to.dtype.itemsize, to.storage.device.stream
    move = ctypes.memmove if stream is None else stream.copy
    starts = zip(layout.offsets(outer, to.strides), layout.offsets(outer, source.strides), strict=True)
    for there, here in starts:
        move(to.address + there * size, source.address + here * size, length * size)


def _check_writable(to: View) -> None:
    if to.storage.readonly:
        raise TensorError("cannot write into read-only memory; write into a .clone() of this tensor")


def _overlap(one: View, other: View) -> bool:
    (low, high), (begin, end) = (layout.span(t.shape, t.strides) for t in (one, other))
    size, width = one.dtype.itemsize, other.dtype.itemsize
    starts_before = one.address + low * size < other.address + end * width
    return starts_before and other.address + begin * width < one.address + high * size
