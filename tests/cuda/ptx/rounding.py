"""Rounding of exact values: fused multiply-add with one rounding, directed rounding, tiny values flushed to zero.

An exact value is held as a double and what is missing from it, of which only the sign counts.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]
NAN32: Final = np.array(0x7FFFFFFF, "u4").view("f4")[()]  # what operations of float32 give for NaN
_LOW: Final = np.array(0x1FFFFFFF, "u8")  # bits of a double beyond those of a float32
_HALF: Final = np.array(0x10000000, "u8")
_SIGN: Final = np.array(0x80000000, "u4")
_MAGNITUDE: Final = np.array(0x7FFFFFFF, "u4")
_NORMAL: Final = np.array(0x00800000, "u4")
_ONE: Final = np.array(1, "u4")
_EXPONENT: Final = np.array(0x7F800000, "u4")
_SPLIT: Final = 134217729.0  # 2**27 + 1


def canonical(value: Array) -> Array:
    """Replace every NaN of a float32 array, in place, by that of the hardware."""
    total = value.dot(value)  # NaN only where there is one: squares have no sign
    if total != total:
        value[np.isnan(value)] = NAN32
    return value


def flush(value: Array) -> Array:
    """Return float32 values with subnormal ones as zeros of their sign (.ftz)."""
    bits = value.view("u4")
    tiny = (bits & _EXPONENT) == 0
    return np.where(tiny, bits & _SIGN, bits).view("f4")


def saturate(value: Array) -> Array:
    """Return floats held between 0 and 1, NaN as 0 (.sat)."""
    return np.where(value > 0, np.minimum(value, value.dtype.type(1)), value.dtype.type(0))


def sum_error(a: Array, b: Array, total: Array) -> Array:
    """Return what is missing from the rounded sum of two doubles, exactly (0 where it is not finite)."""
    back = total - a
    error = (a - (total - back)) + (b - back)
    return np.where(np.isfinite(total), error, 0.0)


def to_odd(value: Array, error: Array) -> Array:
    """Return doubles rounded to odd: inexact ones end with a bit 1, so that a further rounding sees what is missing."""
    even = (value.view("u8") & np.uint64(1)) == 0
    toward = np.nextafter(value, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & even, toward, value)


def fma32(a: Array, b: Array, c: Array, out: Array | None = None) -> Array:
    """Return a * b + c of float32 with one rounding."""
    product = a.astype("f8")
    product *= b  # exact: 48 bits
    total = product + c
    found = total.astype("f4")
    near = (total.view("u8") & _LOW) == _HALF  # halfway between two: what was lost decides
    if np.count_nonzero(near) or _has_tiny(found):
        found = to_odd(total, sum_error(product, c.astype("f8"), total)).astype("f4")
    canonical(found)
    if out is None:
        return found
    out[...] = found
    return out


def _has_tiny(value: Array) -> bool:
    """Return whether a float32 array has subnormal values (or the least normal one)."""
    bits: Array = value.view("u4") & _MAGNITUDE
    bits -= _ONE
    return bool(np.count_nonzero(bits < _NORMAL))


def narrow(value: Array, error: Array | float, mode: str, dtype: str = "f4") -> Array:
    """Round doubles, of which error is missing, to a narrower float: rn, rz, rm (down) or rp (up)."""
    if mode == "rn" and not isinstance(error, np.ndarray) and error == 0:
        return value.astype(dtype)
    missing = np.broadcast_to(np.asarray(error), value.shape)
    if mode == "rn":
        return to_odd(value, missing).astype(dtype)
    found = value.astype(dtype)
    back = found.astype("f8")
    above = (back > value) | ((back == value) & (missing < 0))
    below = (back < value) | ((back == value) & (missing > 0))
    zero, up, down = found.dtype.type(0), found.dtype.type(np.inf), found.dtype.type(-np.inf)
    if mode == "rm":
        return np.where(above, np.nextafter(found, down), found)
    if mode == "rp":
        return np.where(below, np.nextafter(found, up), found)
    away = ((found > 0) & above) | ((found < 0) & below)
    return np.where(away, np.nextafter(found, zero), found)


def fma64(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c of doubles with one rounding (Boldo and Melquiond, 2008); extreme exponents as fractions."""
    high = a * b
    low = _product_error(a, b, high)
    inner = c + low
    inner_low = sum_error(c, low, inner)
    outer = high + inner
    outer_low = sum_error(high, inner, outer)
    rest = outer_low + inner_low
    found = outer + to_odd(rest, sum_error(outer_low, inner_low, rest))
    sizes = [np.frexp(x)[1] for x in (a, b, c)]
    extreme = (np.abs(sizes[0] + sizes[1]) > 900) | (np.abs(sizes[2]) > 900) | (np.abs(sizes[0]) > 900)
    extreme |= np.abs(sizes[1]) > 900
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    found = np.where(finite & (high != 0), found, high + c)
    for n in np.flatnonzero(extreme & finite):
        found[n] = _fma_exact(float(a[n]), float(b[n]), float(c[n]))
    return found


def _product_error(a: Array, b: Array, product: Array) -> Array:
    """Return what is missing from the rounded product of two doubles (Dekker)."""
    halves = []
    for x in (a, b):
        big = x * _SPLIT
        top = big - (big - x)
        halves.append((top, x - top))
    (ah, al), (bh, bl) = halves
    return al * bl - (((product - ah * bh) - al * bh) - ah * bl)


def _fma_exact(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c if a * b == 0 else 0.0
    try:
        return float(exact)  # an int divided by an int is rounded once
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
