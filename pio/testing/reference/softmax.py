"""Softmax of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence


def softmax(x: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return ``exp(x - max(x)) / sum(exp(x - max(x)))`` by rows; NaN for a row without a finite maximum."""
    return [_row(row) for row in x]


def _row(row: Sequence[float]) -> list[float]:
    top = max(row)
    if any(math.isnan(v) for v in row) or math.isinf(top):
        return [math.nan] * len(row)
    powers = [math.exp(v - top) for v in row]
    total = math.fsum(powers)
    return [p / total for p in powers]
