"""Floats as their bits: samples of them, and sums and products by fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from exact import NANS, is_infinite, is_nan, rounded, value
from snippets import samples

DTYPES = {"f16": "f2", "bf16": "u2", "f32": "f4", "f64": "f8"}
BITS = {"f16": "u2", "bf16": "u2", "f32": "u4", "f64": "u8"}


def given(kind: str, parts: int, seed: int = 1, count: int = 150):
    """Return bits of float arrays, special values among them."""
    if kind == "bf16":
        found = [x.view("u4") >> 16 for x in samples(seed, "f4", count, parts)]
        return [x.astype("u2") for x in found]
    return [x.view(BITS[kind]) for x in samples(seed, DTYPES[kind], count, parts)]


def lists(*arrays):
    return zip(*[array.tolist() for array in arrays], strict=True)


def check(found, expected, kind):
    """Compare bits; NaN of float64 have any."""
    for n, (x, y) in enumerate(zip(found.tolist(), expected, strict=True)):
        if kind == "f64" and is_nan(y, kind):
            assert is_nan(x, kind), n
        else:
            assert x == y, (n, hex(x), hex(y))


def as_float(bits: int, kind: str) -> float:
    if is_nan(bits, kind):
        return math.nan
    if is_infinite(bits, kind):
        return -math.inf if bits >> (8 * np.dtype(BITS[kind]).itemsize - 1) else math.inf
    return float(value(bits, kind)) if value(bits, kind) else (-0.0 if bits else 0.0)


def exactly(kind, mode, operation, *bits):
    """Return the bits of a sum, product or fused product: by fractions, by rules where something is infinite."""
    nan = NANS.get(kind, 0x7FF8000000000000)
    a, b, *rest = [as_float(x, kind) for x in bits]
    if any(math.isnan(x) for x in (a, b, *rest)):
        return nan
    if operation == "sub":
        b = -b
    if operation in ("add", "sub"):
        parts = [a, b]
    else:
        if math.isinf(a) or math.isinf(b):
            product = math.nan if 0 in (a, b) else math.copysign(math.inf, a) * math.copysign(1, b)
        else:
            product = Fraction(a) * Fraction(b)
            if product == 0:
                product = math.copysign(1, a) * math.copysign(1, b) * 0.0
        parts = [product, *rest]
    return total(parts, kind, mode, nan)


def total(parts, kind, mode, nan):
    if any(isinstance(x, float) and math.isnan(x) for x in parts):
        return nan
    infinite = {x for x in parts if isinstance(x, float) and math.isinf(x)}
    if len(infinite) > 1:
        return nan
    if infinite:
        form = 8 * np.dtype(BITS[kind]).itemsize - 1
        size = {"f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F800000, "f64": 0x7FF << 52}[kind]
        return size | (1 << form if infinite.pop() < 0 else 0)
    exact = sum((Fraction(x) for x in parts), Fraction(0))
    zeros = [isinstance(x, float) and x == 0 and math.copysign(1, x) < 0 for x in parts]
    all_zero = all(x == 0 for x in parts)
    negative = all(zeros) if all_zero and (len(parts) == 1 or len(set(zeros)) == 1) else mode == "rm"
    return rounded(exact, kind, mode, negative)
