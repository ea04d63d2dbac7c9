"""Arithmetic on numbers in pairs."""

from __future__ import annotations

from collections.abc import Sequence


def add(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Return ``x + y``, element by element."""
    return [a + b for a, b in zip(x, y, strict=True)]


def mul(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Return ``x * y``, element by element."""
    return [a * b for a, b in zip(x, y, strict=True)]
