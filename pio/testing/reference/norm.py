"""Normalisation of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def rms_norm(x: Rows, weight: Sequence[float], eps: float, zero_centred: bool = False) -> list[list[float]]:
    """Return ``x / sqrt(mean(x²) + eps) * weight`` by rows, or ``* (1 + weight)``."""
    factors = [1.0 + w for w in weight] if zero_centred else list(weight)
    out: list[list[float]] = []
    for row in x:
        root = math.sqrt(math.fsum(v * v for v in row) / len(row) + eps)
        out.append([v / root * w for v, w in zip(row, factors, strict=True)])
    return out


def fused_add_rms_norm(
    x: Rows, residual: Rows, weight: Sequence[float], eps: float, zero_centred: bool = False
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the normalised sum and the sum."""
    total = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(x, residual, strict=True)]
    return rms_norm(total, weight, eps, zero_centred), total


def gated_rms_norm(x: Rows, gate: Rows, weight: Sequence[float], eps: float) -> list[list[float]]:
    """Return ``rms_norm(x) * gate / (1 + exp(-gate))`` by rows."""
    normed = rms_norm(x, weight, eps)
    return [
        [v * g / (1.0 + math.exp(-g)) for v, g in zip(*rows, strict=True)] for rows in zip(normed, gate, strict=True)
    ]


def layer_norm(x: Rows, weight: Sequence[float], bias: Sequence[float] | None, eps: float) -> list[list[float]]:
    """Return ``(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` by rows."""
    shift = bias if bias is not None else [0.0] * len(weight)
    out: list[list[float]] = []
    for row in x:
        mean = math.fsum(row) / len(row)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / len(row) + eps)
        out.append([(v - mean) / deviation * w + b for v, w, b in zip(row, weight, shift, strict=True)])
    return out
