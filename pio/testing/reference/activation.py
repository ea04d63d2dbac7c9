"""Activation functions of single numbers, and gated rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def silu(x: float) -> float:
    """Return ``x / (1 + exp(-x))``."""
    if x < -700:
        return x * math.exp(x) if math.isfinite(x) else math.nan
    return x / (1.0 + math.exp(-x))


def sigmoid(x: float) -> float:
    """Return ``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + math.exp(-x)) if x > -700 else math.exp(x)


def gelu(x: float, approximate: str = "tanh") -> float:
    """Return ``x / 2 * (1 + erf(x / sqrt(2)))``, or the usual formula with tanh."""
    if approximate == "none":
        return x / 2 * math.erfc(-x / math.sqrt(2))
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def swiglu(gate: Rows, up: Rows) -> list[list[float]]:
    """Return ``silu(gate) * up``."""
    return [[silu(g) * u for g, u in zip(*rows, strict=True)] for rows in zip(gate, up, strict=True)]


def sigmoid_gate(x: Rows, gate: Rows) -> list[list[float]]:
    """Return ``x * sigmoid(gate)``."""
    return [[a * sigmoid(g) for a, g in zip(*rows, strict=True)] for rows in zip(x, gate, strict=True)]
