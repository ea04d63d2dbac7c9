"""Products of quantized groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

Activations = tuple[float, Sequence[int]]  # scale, numbers
Weights = tuple[float, float, Sequence[int]]  # scale, minimum, stored numbers less what stands for zero


def terms(x: Sequence[Activations], w: Sequence[Weights]) -> list[float]:
    """Return what each group adds to one output: an integer product times scales, and the minimum's share."""
    out: list[float] = []
    for (step, numbers), (scale, minimum, stored) in zip(x, w, strict=True):
        out.append(step * scale * sum(a * b for a, b in zip(numbers, stored, strict=True)))
        out.append(step * minimum * sum(numbers))
    return out


def tile(x: Sequence[Sequence[Activations]], w: Sequence[Sequence[Weights]]) -> list[list[float]]:
    """Return ``x @ w.T`` for rows of activations and rows of weights, by groups."""
    return [[math.fsum(terms(row, output)) for output in w] for row in x]


def magnitudes(x: Sequence[Sequence[Activations]], w: Sequence[Sequence[Weights]]) -> list[list[float]]:
    """Return the sums of the terms' magnitudes, which bound what rounding may add."""
    return [[math.fsum(abs(t) for t in terms(row, output)) for output in w] for row in x]
