"""Float formats of 16 and 8 bits, as bits: widened to doubles and rounded back."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .rounding import narrow, to_odd

Array = np.ndarray[Any, Any]
_HALF_NAN: Final = np.uint16(0x7FFF)


def widen(bits: Array, kind: str) -> Array:
    """Return float16 ("f") or bfloat16 ("bf") bits as doubles."""
    if kind == "f":
        return bits.view("f2").astype("f8")
    return (bits.astype("u4") << np.uint32(16)).view("f4").astype("f8")


def narrow16(value: Array, error: Array | float, kind: str, mode: str = "rn") -> Array:
    """Round doubles, of which error is missing, to the bits of float16 or bfloat16."""
    if kind == "f":
        bits = narrow(value, error, mode, "f2").view("u2")
    else:
        bits = _to_bfloat16(value, error, mode)
    return np.where(np.isnan(value), _HALF_NAN, bits)


def nearest16(value: Array, kind: str) -> Array:
    """Round float32 to the nearest float16 or bfloat16, ties to even, as bits: what conversions mostly do, quickly."""
    if kind == "f":
        found = value.astype("f2").view("u2")
    else:
        bits = value.view("u4")
        odd = bits >> np.uint32(16)
        odd &= np.uint32(1)
        odd += np.uint32(0x7FFF)
        odd += bits
        found = odd.view("u2")[1::2].copy()
    return _with_nan(found, value, _HALF_NAN)


def _with_nan(bits: Array, value: Array, nan: np.unsignedinteger[Any]) -> Array:
    """Write, in place, what stands for NaN where a float32 is one."""
    total = value.dot(value)  # NaN only where there is one: squares have no sign
    if total != total:
        bits[np.isnan(value)] = nan
    return bits


def _to_bfloat16(value: Array, error: Array | float, mode: str) -> Array:
    """Round by way of a float32 that is cut off, its last bit set where something is missing."""
    missing = np.broadcast_to(np.asarray(error), value.shape)
    cut = narrow(to_odd(value, missing), 0.0, "rz")
    exact = cut.astype("f8") == value
    inexact = ~(exact & (missing == 0)) & np.isfinite(value)
    bits = cut.view("u4") | inexact.astype("u4")
    if mode == "rn":
        carried = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    else:
        negative = (bits >> np.uint32(31)) != 0
        away = np.zeros(bits.shape, "?") if mode == "rz" else negative if mode == "rm" else ~negative
        carried = bits + np.where(away & np.isfinite(value), np.uint32(0xFFFF), np.uint32(0))
    return (carried >> np.uint32(16)).astype("u2")


def round_tf32(value: Array) -> Array:
    """Return float32 bits rounded to the 10 bits of tf32, ties away from zero (cvt.rna.tf32.f32)."""
    rounded = value.view("u4") + np.uint32(0x1000)  # infinity stays what it is
    rounded &= np.uint32(0xFFFFE000)
    return _with_nan(rounded, value, np.uint32(0x7FFFFFFF))


# 8 bits

_FIELDS: Final = {"e4m3": (4, 3, 7), "e5m2": (5, 2, 15)}  # bits of exponent and fraction, bias


def _values(name: str) -> Array:
    """Return what each of 256 bit patterns stands for, as doubles."""
    exponents, fractions, bias = _FIELDS[name]
    made = []
    for code in range(256):
        exponent, fraction = code >> fractions & (2**exponents - 1), code & (2**fractions - 1)
        if name == "e4m3" and code & 0x7F == 0x7F:
            value = float("nan")
        elif name == "e5m2" and exponent == 31:
            value = float("nan") if fraction else float("inf")
        elif exponent:
            value = (1 + fraction / 2**fractions) * 2.0 ** (exponent - bias)
        else:
            value = fraction / 2**fractions * 2.0 ** (1 - bias)
        made.append(-value if code >= 128 else value)
    return np.array(made)


FP8: Final = {name: _values(name) for name in _FIELDS}
_LARGEST: Final = {"e4m3": 0x7E, "e5m2": 0x7B}


def to_fp8(value: Array, name: str) -> Array:
    """Round doubles to the nearest 8-bit float, ties to even, too large ones to the largest (.rn.satfinite)."""
    known = FP8[name][: _LARGEST[name] + 1]
    size = np.minimum(np.abs(value), known[-1])
    above = np.minimum(np.searchsorted(known, size), len(known) - 1)
    below = np.maximum(above - 1, 0)
    to_above, to_below = known[above] - size, size - known[below]
    pick_above = (to_above < to_below) | ((to_above == to_below) & (above % 2 == 0))
    code = np.where(pick_above, above, below).astype("u1")
    code = np.where(np.signbit(value), code | 0x80, code).astype("u1")
    return np.where(np.isnan(value), np.uint8(0x7F), code)
