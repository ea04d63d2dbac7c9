"""Attention as its definition says it, in float64."""

from __future__ import annotations

import math


def attention(
    q: list[list[list[float]]],
    k: list[list[list[float]]],
    v: list[list[list[float]]],
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
) -> list[list[list[float]]]:
    """Attend for the last tokens of one sequence.

    out[t, h] = sum_j softmax_j(scale * q[t, h] . k[j, h // group]) * v[j, h // group]

    Shapes: q (tokens, heads, dim); k, v (length, kv_heads, dim); token t is at position length - tokens + t.
    """
    length, group = len(k), len(q[0]) // len(k[0])
    factor = 1 / math.sqrt(len(q[0][0])) if scale is None else scale
    out: list[list[list[float]]] = []
    for t, heads in enumerate(q):
        at = length - len(q) + t
        seen = [j for j in range(length) if (not causal or j <= at) and (window is None or j > at - window)]
        row: list[list[float]] = []
        for h, query in enumerate(heads):
            scores = [factor * math.fsum(a * b for a, b in zip(query, k[j][h // group], strict=True)) for j in seen]
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            total = math.fsum(weights)
            row.append(
                [
                    math.fsum(w * v[j][h // group][i] for w, j in zip(weights, seen, strict=True)) / total
                    for i in range(len(query))
                ]
            )
        out.append(row)
    return out
