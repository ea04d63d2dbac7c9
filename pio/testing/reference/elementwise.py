"""Arithmetic on numbers in pairs, and the search for a number that is none."""

from __future__ import annotations

import math
from collections.abc import Sequence


def add(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Return ``x + y``, element by element."""
    return [a + b for a, b in zip(x, y, strict=True)]


def mul(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Return ``x * y``, element by element."""
    return [a * b for a, b in zip(x, y, strict=True)]


def first_non_finite(x: Sequence[float]) -> int | None:
    """Return the position of the first NaN or infinity."""
    return next((i for i, v in enumerate(x) if not math.isfinite(v)), None)
