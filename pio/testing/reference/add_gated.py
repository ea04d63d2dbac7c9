"""A sum behind a gate."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def add_gated(out: Rows, y: Rows, x: Rows, weight: Sequence[float]) -> list[list[float]]:
    """Return ``out + sigmoid(x @ weight) * y``, row by row."""
    logits = [math.fsum(a * w for a, w in zip(row, weight, strict=True)) for row in x]
    gates = [0.5 + math.tanh(logit / 2) / 2 for logit in logits]
    return [[a + gate * b for a, b in zip(*rows, strict=True)] for *rows, gate in zip(out, y, gates, strict=True)]
