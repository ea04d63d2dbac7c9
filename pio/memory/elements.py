"""Elements as Python numbers: nested lists to packed bytes and back, one rounding, no NumPy."""

from __future__ import annotations

import builtins
import math
import struct
from array import array
from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast

from pio import dtypes
from pio.dtypes import DType
from pio.errors import TensorError
from pio.memory.layout import Shape

_MAX_DEPTH: Final = 64  # the buffer protocol has no more dimensions either; bounds a list that contains itself

Nested: TypeAlias = int | float | Sequence["Nested"]


def shape_of(nested: object) -> Shape:
    """Return the shape of a nested list, seen along its first elements.

    Raises:
        TensorError: It is nested more than 64 deep.
    """
    shape: list[int] = []
    while (items := _items(nested)) is not None:
        if len(shape) == _MAX_DEPTH:
            raise TensorError(f"a nested list may be {_MAX_DEPTH} deep; this one is deeper")
        shape.append(len(items))
        if not items:
            break
        nested = items[0]
    return tuple(shape)


def _items(value: object) -> Sequence[Any] | None:
    return cast(Sequence[Any], value) if isinstance(value, list | tuple | range) else None


def flatten(nested: object, shape: Shape) -> list[Any]:
    """Return the numbers of a nested list of that shape in row-major order.

    Raises:
        TensorError: The list is ragged.
    """
    flat: list[Any] = [nested]
    for axis, n in enumerate(shape):
        out: list[Any] = []
        for item in flat:
            row = _items(item)
            if row is None or len(row) != n:
                found = f"the number {item!r}" if row is None else f"{len(row)}"
                raise TensorError(f"ragged list: at depth {axis} expected {n} elements, found {found}")
            out.extend(row)
        flat = out
    return flat


def encode(values: list[Any], dtype: DType) -> bytes:
    """Pack numbers, floats rounded once to the nearest (ties to even) and, where too large, to infinity.

    Raises:
        TensorError: A value is no number, or does not fit into an integer type.
    """
    try:
        if dtype is dtypes.bfloat16:
            return _encode_bfloat16(values)
        if dtype is dtypes.float16:
            return _encode_float16(values)
        return array(dtype.format, values).tobytes()
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise TensorError(f"cannot store these values as {dtype}: {error}") from error


def decode(values: list[Any], dtype: DType) -> list[Any]:
    """Turn what a buffer view of ``dtype.format`` holds into numbers: the 16-bit floats travel as their bits."""
    if dtype is dtypes.bfloat16:
        return builtins.memoryview(array("I", [v << 16 for v in values])).cast("B").cast("f").tolist()
    if dtype is dtypes.float16:
        return list(struct.unpack(f"{len(values)}e", array("H", values)))
    return values


def view_as(data: builtins.memoryview, dtype: DType, *shape: Shape) -> builtins.memoryview:
    """Return bytes as elements; the type stubs of ``cast`` want its format spelled out."""
    return cast(Any, data).cast(dtype.format, *shape)


def gather(view: builtins.memoryview, at: int, shape: Shape, strides: Shape, dtype: DType) -> Any:
    """Read elements out of a flat view as lists in lists of that shape; for shape ``()`` as the number itself.

    Args:
        view: Elements of ``dtype.format``.
        at: Position of element 0 in ``view``.
        shape: Lengths of the lists.
        strides: Steps between elements; negative and zero ones are fine.
        dtype: What the elements are.
    """
    if not shape:
        return decode([view[at]], dtype)[0]
    n, stride = shape[0], strides[0]
    if len(shape) > 1:
        return [gather(view, at + i * stride, shape[1:], strides[1:], dtype) for i in range(n)]
    if n == 0:
        return []
    if stride == 0:
        return decode([view[at]], dtype) * n
    stop = at + n * stride
    return decode(view[at : None if stop < 0 else stop : stride].tolist(), dtype)


def _encode_float16(values: list[Any]) -> bytes:
    try:
        return struct.pack(f"{len(values)}e", *values)
    except OverflowError:  # struct refuses what rounds beyond 65504; the other float types give infinity
        return struct.pack(
            f"{len(values)}e", *(v if abs(v) < 65520 or v != v else math.copysign(math.inf, v) for v in values)
        )


def _encode_bfloat16(values: list[Any]) -> bytes:
    singles = array("f", values)
    bits = builtins.memoryview(singles).cast("B").cast("I").tolist()
    out = array("H")
    for value, single, b in zip(values, singles, bits, strict=True):
        if single != single:
            out.append(b >> 16 | 0x40)  # stays a NaN although its low bits are cut off
            continue
        if single != value:  # rounded to odd here, the second rounding cannot make a tie of what was none
            b = (b - 1 if abs(single) > abs(value) else b) | 1
        out.append((b + 0x7FFF + (b >> 16 & 1)) >> 16)
    return out.tobytes()
