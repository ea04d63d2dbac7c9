"""Convolution over time as its definition says it, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def causal_conv(x: Matrix, weight: Matrix, state: Matrix) -> tuple[list[list[float]], list[list[float]]]:
    """Return ``silu(sum_j weight[j] * input[t + j])`` for every token, and the last inputs.

    Shapes: x (tokens, channels); weight (width, channels); state (width - 1, channels), which comes before x.
    """
    rows = [*map(list, state), *map(list, x)]
    out: list[list[float]] = []
    for t in range(len(x)):
        sums = [math.fsum(weight[j][c] * rows[t + j][c] for j in range(len(weight))) for c in range(len(weight[0]))]
        out.append([s / (1.0 + math.exp(-s)) if s > -700 else 0.0 for s in sums])
    return out, rows[len(x) :]
