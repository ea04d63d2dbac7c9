"""Draws written naively, in float64: what the kernels are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence


def candidates(
    logits: Sequence[float], temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> list[tuple[int, float]]:
    """Return the tokens that may be drawn with their probabilities, likeliest first, equals by id."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if top_k:
        order = order[:top_k]
    weights = [math.exp((logits[i] - logits[order[0]]) / temperature) for i in order]
    total = math.fsum(weights)
    kept: list[tuple[int, float]] = []
    above = 0.0
    for token, weight in zip(order, weights, strict=True):
        if (top_p < 1 and above >= top_p * total) or weight < min_p:
            break
        kept.append((token, weight))
        above += weight
    mass = math.fsum(weight for _, weight in kept)
    return [(token, weight / mass) for token, weight in kept]


def draw(chances: Sequence[tuple[int, float]], u: float) -> int:
    """Return the first token whose cumulative probability passes u."""
    total = 0.0
    for token, chance in chances:
        total += chance
        if total > u:
            return token
    return chances[-1][0]
