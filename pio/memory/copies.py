"""Copying and filling tensors: whole runs of memory directly, everything else by a compiled loop of ``pio.ops``.

In a step that is recorded every copy goes by ``pio.ops``, which is recorded with it.
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import TYPE_CHECKING, Final

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

    Shapes: to, source the same, any strides; they may overlap.

    Raises:
        TensorError: The shapes differ, or ``to`` is read-only.
    """
    _check_writable(to)
    if source.shape != to.shape:
        raise TensorError(f"cannot copy shape {source.shape} into shape {to.shape}; shapes must be equal")
    length, outer = layout.runs(to.shape, to.strides, source.strides)
    count = prod(outer)
    direct = source.dtype is to.dtype and count <= _MAX_RUNS and step.local.step is None
    if _overlap(to, source) and not (direct and count == 1):  # one memmove alone copes with overlap
        source = source.clone()
        length, outer = layout.runs(to.shape, to.strides, source.strides)
    if direct:
        _copy_runs(to, source, length, outer)
    else:
        operations().copy(to, source)


def fill(to: View, value: float) -> None:
    """Set every element of ``to`` to ``value``.

    Raises:
        TensorError: ``to`` is read-only, or its type cannot hold the value.
        RecordingError: This thread records a step.
    """
    step.refuse("writes numbers", step.WRITES)
    _check_writable(to)
    one = elements.encode([value], to.dtype)
    if not to.is_contiguous:
        cell = Storage.allocate(len(one), what="one element", device=to.storage.device)
        ctypes.memmove(cell.address, one, len(one))
        copy(to, type(to)(cell, cell.address, to.dtype, to.shape, (0,) * to.ndim))
        return
    total = to.nbytes
    if total == 0:
        return
    if one.count(one[0]) == len(one):
        ctypes.memset(to.address, one[0], total)
        return
    ctypes.memmove(to.address, one, len(one))
    done = len(one)
    while done < total:  # each pass doubles what is filled
        more = min(done, total - done)
        ctypes.memmove(to.address + done, to.address, more)
        done += more


def _copy_runs(to: View, source: View, length: int, outer: Shape) -> None:
    size = to.dtype.itemsize
    starts = zip(layout.offsets(outer, to.strides), layout.offsets(outer, source.strides), strict=True)
    for there, here in starts:
        ctypes.memmove(to.address + there * size, source.address + here * size, length * size)


def _check_writable(to: View) -> None:
    if to.storage.readonly:
        raise TensorError("cannot write into read-only memory; write into a .clone() of this tensor")


def _overlap(one: View, other: View) -> bool:
    (low, high), (begin, end) = (layout.span(t.shape, t.strides) for t in (one, other))
    size, width = one.dtype.itemsize, other.dtype.itemsize
    starts_before = one.address + low * size < other.address + end * width
    return starts_before and other.address + begin * width < one.address + high * size
