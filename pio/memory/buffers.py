"""Tensors over foreign buffers: formats of the buffer protocol become element types."""

from __future__ import annotations

import sys
from typing import Any, Final

from pio import dtypes
from pio.dtypes import DType
from pio.errors import TensorError
from pio.memory import layout, step
from pio.memory.storage import BufferHold, Storage
from pio.memory.view import Parts, View

_NATIVE_ORDER: Final = "@=<" if sys.byteorder == "little" else "@=>!"
_FLOATS: Final = {"f": dtypes.float32, "e": dtypes.float16}
_SIGNED: Final = {1: dtypes.int8, 4: dtypes.int32, 8: dtypes.int64}  # the sizes of i and l differ between systems


def wrap(source: object, dtype: DType | None) -> Parts:
    """Return the parts of a tensor over the buffer of ``source``, without a copy.

    Raises:
        TensorError: No buffer, or one whose format does not fit ``dtype``.
    """
    hold = BufferHold(source)
    with memoryview(source) as view:  # pyright: ignore[reportArgumentType]
        return _over(view, hold, dtype)


def _over(view: memoryview, hold: BufferHold, dtype: DType | None) -> Parts:
    found = _dtype_of(view.format, view.itemsize)
    kind = found if dtype is None else dtype
    if kind is None:
        raise TensorError(
            f"no element type for a buffer of format {view.format!r}; pass dtype= for bytes or 16-bit floats, "
            f"or convert it to one of {', '.join(d.name for d in dtypes.ALL)}"
        )
    shape, steps = tuple(view.shape or ()), tuple(view.strides or ())
    if view.suboffsets:
        raise TensorError("cannot wrap a buffer of pointers (with suboffsets)")
    if kind is not found and kind.itemsize != view.itemsize:
        shape, steps = _reinterpret(view, kind), (kind.itemsize,)
    elif kind is not found and view.format.lstrip(_NATIVE_ORDER) not in _REINTERPRETED:
        raise TensorError(f"a buffer of format {view.format!r} is not {kind}; wrap it as {found} and use astype()")
    if any(step % kind.itemsize for step in steps):
        raise TensorError(f"cannot wrap strides of {steps} bytes: {kind} needs multiples of {kind.itemsize}")
    strides = tuple(step // kind.itemsize for step in steps)
    low, high = layout.span(shape, strides)
    start = hold.address + low * kind.itemsize
    storage = Storage(start, (high - low) * kind.itemsize, hold, view.readonly)
    return Parts(storage, hold.address, kind, shape, strides)


def array_interface(tensor: View) -> dict[str, Any]:
    """Describe a tensor as version 3 of NumPy's array interface, which shares the memory.

    Raises:
        TensorError: The interface has no name for the element type.
        DeviceError: It lies on a GPU.
        RecordingError: This thread records a step.
    """
    step.refuse("shows numbers to Python", step.READS)
    tensor.storage.check_readable("NumPy's array interface")
    tensor.storage.show()
    kind = tensor.dtype
    if kind is dtypes.bfloat16:
        raise TensorError('NumPy has no bfloat16; convert the tensor with .astype("float32") first')
    order = "|" if kind.itemsize == 1 else "<" if sys.byteorder == "little" else ">"
    letter = "f" if kind.is_float else "u" if kind is dtypes.uint8 else "i"
    return {
        "version": 3,
        "typestr": f"{order}{letter}{kind.itemsize}",
        "shape": tensor.shape,
        "strides": tuple(stride * kind.itemsize for stride in tensor.strides),
        "data": (tensor.address, tensor.readonly),
    }


_REINTERPRETED: Final = frozenset("BbcHhe")


def _dtype_of(form: str, itemsize: int) -> DType | None:
    code = form.lstrip(_NATIVE_ORDER)
    if code in _FLOATS:
        return _FLOATS[code]
    if code in ("b", "i", "l", "q"):
        return _SIGNED.get(itemsize)
    return dtypes.uint8 if code == "B" else None


def _reinterpret(view: memoryview, kind: DType) -> tuple[int]:
    """Return the shape of a contiguous buffer of bytes as elements of another size."""
    if view.format.lstrip(_NATIVE_ORDER) not in ("B", "b", "c"):
        raise TensorError(f"a buffer of format {view.format!r} cannot be read as {kind}; only bytes can")
    if not view.c_contiguous or view.nbytes % kind.itemsize:
        gaps = "with gaps" if not view.c_contiguous else f"of {view.nbytes} bytes"
        raise TensorError(f"a buffer {gaps} cannot be read as {kind} of {kind.itemsize} bytes each")
    return (view.nbytes // kind.itemsize,)
