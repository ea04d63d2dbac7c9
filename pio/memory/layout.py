"""Shapes and strides (in elements): pure arithmetic on tuples, no memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from operator import index as as_int
from types import EllipsisType
from typing import SupportsIndex, TypeAlias

from pio.errors import TensorError

Shape: TypeAlias = tuple[int, ...]
Index: TypeAlias = SupportsIndex | slice | EllipsisType


def row_major(shape: Shape) -> Shape:
    """Return the strides of a row-major array: ``(2, 3, 5)`` gives ``(15, 5, 1)``."""
    if len(shape) == 1:
        return (1,)
    if len(shape) == 2:
        return (shape[1], 1)
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    strides.reverse()
    return tuple(strides)


@lru_cache(maxsize=256)  # asked of every argument of every operation of a step, in each of its layers
def is_row_major(shape: Shape, strides: Shape) -> bool:
    """Return whether the elements lie in row-major order without gaps; the stride of a length of 1 does not matter."""
    step = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n == 0:
            return True
        if n != 1:
            if stride != step:
                return prod(shape) == 0
            step *= n
    return True


def check_shape(shape: SupportsIndex | Sequence[SupportsIndex]) -> Shape:
    """Return ``shape`` as a tuple of integers; a bare integer is one dimension.

    Raises:
        TensorError: A length is no integer, or negative.
    """
    try:
        if isinstance(shape, tuple | list) or not isinstance(shape, SupportsIndex):
            out = tuple(map(as_int, shape))
        else:
            out = (as_int(shape),)
    except TypeError as error:
        raise TensorError(f"a shape is a sequence of integers, found {shape!r}") from error
    if out and min(out) < 0:
        raise TensorError(f"a shape holds no negative lengths, found {out}")
    return out


def span(shape: Shape, strides: Shape) -> tuple[int, int]:
    """Return the lowest offset of an element and one more than the highest; element 0 has offset 0."""
    low, high = 0, 1
    for n, stride in zip(shape, strides, strict=True):
        if n == 0:
            return 0, 0
        if stride < 0:
            low += (n - 1) * stride
        else:
            high += (n - 1) * stride
    return low, high


def offset_of(position: int, shape: Shape, strides: Shape) -> int:
    """Return the offset of the element at ``position`` in row-major order."""
    offset = 0
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        position, i = divmod(position, n)
        offset += i * stride
    return offset


def resolve_shape(wanted: Sequence[SupportsIndex], size: int) -> Shape:
    """Return ``wanted`` with a -1 replaced by the length that makes ``size`` elements.

    Raises:
        TensorError: No such length exists, or the sizes differ.
    """
    lengths = [as_int(n) for n in wanted]
    if lengths.count(-1) == 1:
        rest = -prod(lengths)
        if rest > 0 and size % rest == 0:
            lengths[lengths.index(-1)] = size // rest
    shape = tuple(lengths)
    if (shape and min(shape) < 0) or prod(shape) != size:
        raise TensorError(f"cannot give {size} elements the shape {shape}; sizes must agree (one length may be -1)")
    return shape


def reshaped(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """Return the strides with which the same memory has the shape ``new``, or None where none do.

    Both shapes have the same number of elements.
    """
    if is_row_major(shape, strides):
        return row_major(new)
    old = [(n, stride) for n, stride in zip(shape, strides, strict=True) if n != 1]
    merged: list[tuple[int, int]] = []  # (elements, stride of the last one): dimensions that one stride walks through
    for n, stride in old:
        if merged and merged[-1][1] == n * stride:
            merged[-1] = (merged[-1][0] * n, stride)
        else:
            merged.append((n, stride))
    out: list[int] = []
    left, step = merged.pop()  # a shape that is not row-major has a length above 1
    for n in reversed(new):
        if n == 1:
            out.append(step)
            continue
        if left == 1:
            left, step = merged.pop()
        if left % n:
            return None
        out.append(step)
        step *= n
        left //= n
    out.reverse()
    return tuple(out)


def permuted(axes: Sequence[SupportsIndex], ndim: int) -> Shape:
    """Return ``axes`` as a permutation of ``range(ndim)``; none at all reverse the order, negative ones count back.

    Raises:
        TensorError: An axis is missing, repeated or out of range.
    """
    if not axes:
        return tuple(reversed(range(ndim)))
    given = tuple(as_int(axis) for axis in axes)
    order = tuple(axis + ndim if axis < 0 else axis for axis in given)
    if sorted(order) != list(range(ndim)):
        raise TensorError(f"cannot transpose {ndim} dimensions by {given}; name each axis once")
    return order


def indexed(shape: Shape, strides: Shape, key: Index | tuple[Index, ...]) -> tuple[int, Shape, Shape]:
    """Return offset, shape and strides of ``array[key]``.

    Raises:
        TensorError: A position is out of range, there are too many, or one is no integer, slice or ellipsis.
    """
    if type(key) is int and shape:  # the common case, without the loop
        return _position(key, shape[0], 0) * strides[0], shape[1:], strides[1:]
    keys = key if isinstance(key, tuple) else (key,)
    dots = sum(k is Ellipsis for k in keys)
    missing = len(shape) - (len(keys) - dots)
    if missing < 0 or dots > 1:
        found = "more than one ellipsis" if dots > 1 else f"{len(keys) - dots} indices"
        raise TensorError(f"cannot index a tensor of shape {shape} with {found}")
    offset, axis = 0, 0
    out: list[int] = []
    steps: list[int] = []
    for k in keys:
        if k is Ellipsis:
            out += shape[axis : axis + missing]
            steps += strides[axis : axis + missing]
            axis += missing
            continue
        n, stride = shape[axis], strides[axis]
        if isinstance(k, slice):
            start, length, step = _slice(k, n)
            offset += start * stride
            out.append(length)
            steps.append(step * stride)
        else:
            offset += _position(k, n, axis) * stride
        axis += 1
    return offset, (*out, *shape[axis:]), (*steps, *strides[axis:])


def runs(shape: Shape, first: Shape, second: Shape) -> tuple[int, Shape]:
    """Return the elements of the longest tail that both strides walk without a gap, and the shape above that tail."""
    length, axis = 1, len(shape)
    while axis and (shape[axis - 1] == 1 or first[axis - 1] == second[axis - 1] == length):
        axis -= 1
        length *= shape[axis]
    return length, shape[:axis]


def offsets(shape: Shape, strides: Shape) -> Iterator[int]:
    """Yield the offset of every element in row-major order."""
    pairs = zip(shape, strides, strict=False)
    return map(sum, product(*([i * stride for i in range(n)] for n, stride in pairs)))


def _slice(key: slice, n: int) -> tuple[int, int, int]:
    """Return the first position, the length and the step of a slice of ``n`` elements."""
    try:
        start, stop, step = key.indices(n)
    except (TypeError, ValueError) as error:
        raise TensorError(f"cannot slice a tensor with {key!r}: {error}") from error
    length = len(range(start, stop, step))
    return (start if length else 0), length, step


def _position(key: object, n: int, axis: int) -> int:
    """Return ``key`` as a position among ``n``, counted from the front."""
    if type(key) is int:
        i = key
    elif isinstance(key, bool) or not isinstance(key, SupportsIndex):
        raise TensorError(f"a tensor is indexed by integers, slices and ..., found {key!r}")
    else:
        i = as_int(key)
    if not -n <= i < n:
        raise TensorError(f"index {i} is out of range for axis {axis} with {n} elements")
    return i + n if i < 0 else i
