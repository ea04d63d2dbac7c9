"""Arithmetic of whole numbers that NumPy has no function for."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def divide(a: Array, b: Array) -> Array:
    """Return quotients cut off toward zero."""
    if a.dtype.kind == "u":
        return np.floor_divide(a, b)
    return np.floor_divide(a - np.fmod(a, b), b)


def high(a: Array, b: Array) -> Array:
    """Return the upper half of products."""
    nbytes = a.dtype.itemsize
    if nbytes < 8:
        twice = f"{a.dtype.kind}{2 * nbytes}"
        return (a.astype(twice) * b.astype(twice) >> np.array(8 * nbytes, twice)).astype(a.dtype)
    x, y = a.view("u8"), b.view("u8")
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    xl, xh, yl, yh = x & low, x >> half, y & low, y >> half
    middle = xh * yl + (xl * yl >> half)
    other = xl * yh + (middle & low)
    found = xh * yh + (middle >> half) + (other >> half)
    if a.dtype.kind == "i":
        found = found - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return found.view(a.dtype)


def wide(a: Array, b: Array) -> Array:
    """Return whole products, of twice the width."""
    dtype = f"{a.dtype.kind}{2 * a.dtype.itemsize}"
    return a.astype(dtype) * b.astype(dtype)


def clamped(a: Array, low: int, high: int, dtype: str) -> Array:
    """Return whole numbers held between two bounds, in a dtype that has both."""
    kind = a.dtype
    lowest, highest = (
        (0, 2 ** (8 * kind.itemsize) - 1)
        if kind.kind == "u"
        else (
            -(2 ** (8 * kind.itemsize - 1)),
            2 ** (8 * kind.itemsize - 1) - 1,
        )
    )
    return np.clip(a, kind.type(max(low, lowest)), kind.type(min(high, highest))).astype(dtype)


def bounds(dtype: str) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def add_saturated(a: Array, b: Array) -> Array:
    return np.clip(a.astype("i8") + b.astype("i8"), *bounds("i4")).astype("i4")


def subtract_saturated(a: Array, b: Array) -> Array:
    return np.clip(a.astype("i8") - b.astype("i8"), *bounds("i4")).astype("i4")
