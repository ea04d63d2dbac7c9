"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def matmul(a: Rows, b: Rows) -> list[list[float]]:
    """Return ``a @ b`` for a (m, k) and b (k, n), k > 0."""
    return [
        [math.fsum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a
    ]
