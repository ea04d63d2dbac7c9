"""Linear layers whose heads have a matrix each."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def head_linear(x: Sequence[Rows], weight: Sequence[Rows]) -> list[list[list[float]]]:
    """Return ``out[t, h] = weight[h] @ x[t, h]``.

    Shapes: x (tokens, heads, k); weight (heads, n, k).
    """
    return [
        [
            [math.fsum(a * b for a, b in zip(row, w, strict=True)) for w in matrix]
            for row, matrix in zip(token, weight, strict=True)
        ]
        for token in x
    ]
