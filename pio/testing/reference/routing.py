"""Which experts a token goes to."""

from __future__ import annotations

import math
from collections.abc import Sequence


def scores(logits: Sequence[float], *, logistic: bool = False) -> list[float]:
    """Return each expert's probability: its own, or of all together."""
    if logistic:
        return [1.0 / (1.0 + math.exp(-x)) for x in logits]
    most = max(logits)
    powers = [math.exp(x - most) for x in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def choose(
    found: Sequence[float],
    k: int,
    *,
    bias: Sequence[float] | None = None,
    groups: int = 1,
    kept_groups: int = 1,
    renormalise: bool = True,
    scaling: float = 1.0,
) -> tuple[list[int], list[float]]:
    """Return the k experts with the largest score plus bias in the best groups, and their weights by score alone."""
    n = len(found)
    choice = [s + (bias[i] if bias is not None else 0.0) for i, s in enumerate(found)]
    length = n // groups
    worth = [sum(sorted(choice[g * length : (g + 1) * length], reverse=True)[:2]) for g in range(groups)]
    kept = sorted(range(groups), key=lambda g: (-worth[g], g))[:kept_groups]
    ids = sorted((i for i in range(n) if i // length in kept), key=lambda i: (-choice[i], i))[:k]
    total = sum(found[i] for i in ids)
    factor = scaling / (total + 1e-20) if renormalise else scaling
    return ids, [found[i] * factor for i in ids]


def group_by_expert(ids: Sequence[Sequence[int]], experts: int) -> tuple[list[int], list[int], list[int]]:
    """Return the choices sorted by expert, where each expert's begin, and where each choice is in that order."""
    flat = [expert for row in ids for expert in row]
    order = sorted(range(len(flat)), key=lambda i: (flat[i], i))
    starts = [sum(expert < e for expert in flat) for e in range(experts + 1)]
    return order, starts, [order.index(i) for i in range(len(flat))]
