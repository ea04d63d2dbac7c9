"""Linear layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def linear(x: Rows, weight: Rows, bias: Sequence[float] | None = None, old: Rows | None = None) -> list[list[float]]:
    """Return ``x @ weight.T + bias + old``."""
    out: list[list[float]] = []
    for r, row in enumerate(x):
        sums = [math.fsum(a * b for a, b in zip(row, w, strict=True)) for w in weight]
        shift = bias if bias is not None else [0.0] * len(weight)
        before = old[r] if old is not None else [0.0] * len(weight)
        out.append([s + b + o for s, b, o in zip(sums, shift, before, strict=True)])
    return out
