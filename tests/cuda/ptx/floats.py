"""Arithmetic of floats as PTX defines it, one array function for each operation, type and modifiers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import numpy as np

from .formats import narrow16, widen
from .rounding import canonical, flush, fma64, narrow, saturate, sum_error
from .types import Type

Array = np.ndarray[Any, Any]
# The least normal number and the bits of the exponent
_NORMAL: Final = {"f": 2.0**-14, "bf": 2.0**-126}
_EXPONENT: Final = {"f": np.uint16(0x7C00), "bf": np.uint16(0x7F80)}
DIRECTED: Final = ("rz", "rm", "rp")


def minimum(a: Array, b: Array) -> Array:
    """Return the smaller ones: a NaN loses, and -0 is smaller than +0."""
    found = np.fmin(a, b)
    equal = (a == b) & (a == 0)
    return np.where(equal, np.where(np.signbit(a), a, b), found) if np.count_nonzero(equal) else found


def maximum(a: Array, b: Array) -> Array:
    """Return the larger ones: a NaN loses, and +0 is larger than -0."""
    found = np.fmax(a, b)
    equal = (a == b) & (a == 0)
    return np.where(equal, np.where(np.signbit(a), b, a), found) if np.count_nonzero(equal) else found


def with_nan(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Return a minimum or maximum in which a NaN wins (.NaN)."""
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), function(a, b))


def by_larger_sign(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Return a minimum or maximum of magnitudes with the sign of the product (.xorsign.abs)."""

    def found(a: Array, b: Array) -> Array:
        size = function(np.abs(a), np.abs(b))
        return np.where(np.signbit(a) ^ np.signbit(b), -size, size)

    return found


def directed(name: str, mode: str) -> Callable[..., Array]:
    """Return addition, subtraction, multiplication or fma of float32 with a rounding that is not to nearest."""

    def found(a: Array, b: Array, c: Array | None = None) -> Array:
        x, y = a.astype("f8"), b.astype("f8")
        if name == "sub":
            y = -y
        if name == "mul":
            return canonical(_zero_sum(narrow(x * y, 0.0, mode), x * y, None, mode))
        if name == "fma":
            assert c is not None
            x, y = x * y, c.astype("f8")
        total = x + y
        return canonical(_zero_sum(narrow(total, sum_error(x, y, total), mode), x, y, mode))

    return found


def _zero_sum(found: Array, x: Array, y: Array | None, mode: str) -> Array:
    """Give an exact sum of opposite values that is zero its sign: negative where one rounds down."""
    if mode != "rm" or y is None:
        return found
    return np.where(
        (found == 0) & (x + y == 0) & ~((x == 0) & (y == 0) & ~np.signbit(x) & ~np.signbit(y)), -0.0, found
    ).astype("f4")


def float32(function: Callable[..., Array], ftz: bool, sat: bool) -> Callable[..., Array]:
    """Return a function of float32 with its modifiers; plain ones write into an array that is given."""
    if not ftz and not sat:
        return lambda *values: canonical(function(*values))

    def found(*values: Array) -> Array:
        result = function(*[flush(value) for value in values]) if ftz else function(*values)
        if sat:
            result = saturate(result)
        if ftz:
            result = flush(result)
        return canonical(result)

    return found


def half(function: Callable[..., Array], kind: Type, ftz: bool, sat: bool, relu: bool) -> Callable[..., Array]:
    """Return a function of doubles as one of float16 or bfloat16 bits, alone or two in 32 bits.

    Sums and products of doubles are rounded to 53 bits first, which changes no second rounding to 11 or 8.
    """
    base, packed = kind.kind.removesuffix("x2"), kind.kind.endswith("x2")

    def wide(bits: Array) -> Array:
        value = widen(bits, base)
        return np.where(np.abs(value) < _NORMAL[base], np.copysign(0.0, value), value) if ftz else value

    def found(*values: Array) -> Array:
        parts = [value.view("u2") if packed else value for value in values]
        result = function(*[wide(part) for part in parts])
        total, error = result if isinstance(result, tuple) else (result, 0.0)
        if sat:
            total, error = saturate(total), 0.0
        if relu:
            total = np.where(total < 0, 0.0, total)
        bits = narrow16(total, error, base)
        if ftz:
            small = (bits & _EXPONENT[base]) == 0
            bits = np.where(small, bits & np.uint16(0x8000), bits)
        return bits.view("u4") if packed else bits

    return found


def fma_parts(a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """Return a * b + c and what is missing from it, for doubles whose products are exact."""
    product = a * b
    total = product + c
    return total, sum_error(product, c, total)


def approximate(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return a function computed in double precision and rounded to float32.

    The .approx functions of a GPU are not rounded correctly: they may differ from this by a unit or two in the last
    place (sin and cos, whose error is absolute, by 2**-21 and more outside of [-pi, pi]).
    """
    return lambda a: function(a.astype("f8")).astype("f4")


def copysign(a: Array, b: Array) -> Array:
    """Return b with the sign of a."""
    return np.copysign(b, a)


def exactly(name: str, mode: str) -> Callable[..., Array]:
    """Return a function with a rounding that is not to nearest, lane for lane by fractions."""

    def one(*values: np.floating[Any]) -> np.floating[Any]:
        # Infinity, NaN and the signs of zeros are those of rounding to nearest.
        near: np.floating[Any] = _NEAR[name](*values)
        if not all(np.isfinite(values)) or (name == "div" and values[1] == 0):
            return near
        exact = _EXACT[name](*[Fraction(float(value)) for value in values])
        if exact == 0:
            opposite = name in ("add", "sub", "fma") and mode == "rm" and not np.signbit(near)
            return -near if opposite and not _all_positive(name, values) else near
        away = np.inf if near > 0 or (near == 0 and exact > 0) else -np.inf
        above = np.isposinf(near) or (np.isfinite(near) and Fraction(float(near)) > exact)
        below = np.isneginf(near) or (np.isfinite(near) and Fraction(float(near)) < exact)
        if above and (mode == "rm" or (mode == "rz" and exact > 0)):
            return np.nextafter(near, -near.dtype.type(np.inf))
        if below and (mode == "rp" or (mode == "rz" and exact < 0)):
            return np.nextafter(near, near.dtype.type(np.inf))
        return np.copysign(near, near.dtype.type(away)) if near == 0 else near

    return lambda *values: np.array([one(*row) for row in zip(*values, strict=True)], values[0].dtype)


def _all_positive(name: str, values: tuple[np.floating[Any], ...]) -> bool:
    """Return whether a sum that is zero is one of positive zeros alone."""
    signs = [bool(np.signbit(value)) for value in values]
    terms = [signs[0] ^ signs[1], signs[2]] if name == "fma" else [signs[0], signs[1] ^ (name == "sub")]
    zeros = [values[0] * values[1], values[2]] if name == "fma" else values
    return not any(terms) and not any(zeros)


_EXACT: Final[dict[str, Callable[..., Fraction]]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "fma": lambda a, b, c: a * b + c,
}
_NEAR: Final[dict[str, Callable[..., Any]]] = {
    **{name: function for name, function in _EXACT.items() if name != "fma"},
    "fma": lambda a, b, c: fma64(*[np.array([x]) for x in (a, b, c)])[0],
}
