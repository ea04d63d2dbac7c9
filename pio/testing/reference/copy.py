"""Conversions of single numbers from one element type to another."""

from __future__ import annotations

import ctypes
import math
import struct

_INTEGERS = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def convert(x: float, target: str) -> float:
    """Return a number as the type stores it.

    Floats round to nearest even, by way of float32, and overflow to infinity. Integers are rounded towards zero and
    held within the type's range; NaN becomes 0.
    """
    if target in _INTEGERS:
        low, high = _INTEGERS[target]
        if isinstance(x, float) and not math.isfinite(x):
            return 0 if math.isnan(x) else low if x < 0 else high
        return min(max(math.trunc(x), low), high)
    single = ctypes.c_float(_forty_bits(x) if isinstance(x, int) else x).value
    if target == "float32" or not math.isfinite(single):
        return single
    if target == "float16":
        try:
            return struct.unpack("<e", struct.pack("<e", single))[0]
        except OverflowError:
            return math.copysign(math.inf, single)
    return _bfloat16(single)


def _forty_bits(x: int) -> int:
    """Cut an integer to forty bits or so, odd where something was cut: it rounds to a float32 as the whole does."""
    cut = max(x.bit_length() - 40, 0)
    kept = x >> cut
    return (kept if kept << cut == x else kept | 1) << cut


def _bfloat16(x: float) -> float:
    """Round to eight significant bits, ties to even; the exponents are those of float32."""
    if x == 0:
        return x
    exponent = max(math.frexp(x)[1], -125)
    step = math.ldexp(1.0, exponent - 8)
    rounded = round(x / step) * step
    return math.copysign(rounded if abs(rounded) < math.ldexp(1.0, 128) else math.inf, x)
