"""Attention over latents, and over the keys and values that they stand for, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]
Heads = Sequence[Rows]


def latent_attention(
    q_latent: Heads, q_rope: Heads, latents: Rows, keys: Rows, *, scale: float
) -> list[list[list[float]]]:
    """Attend for the last tokens of one sequence.

    out[t, h] = sum_j softmax_j(scale * (q_latent[t, h] . latents[j] + q_rope[t, h] . keys[j])) * latents[j]

    Shapes: q_latent (tokens, heads, rank); q_rope (tokens, heads, rope); latents (length, rank); keys (length, rope);
    token t is at position length - tokens + t and sees what is not behind it.
    """
    out: list[list[list[float]]] = []
    for t, heads in enumerate(q_latent):
        seen = range(len(latents) - len(q_latent) + t + 1)
        row: list[list[float]] = []
        for h, query in enumerate(heads):
            scores = [scale * (dot(query, latents[j]) + dot(q_rope[t][h], keys[j])) for j in seen]
            row.append(weighted(scores, latents))
        out.append(row)
    return out


def expanded_attention(
    q: Heads, q_rope: Heads, latents: Rows, keys: Rows, weight: Sequence[Rows], *, scale: float
) -> list[list[list[float]]]:
    """Attend with a key and a value for each head, made from the latents.

    (k[j, h], v[j, h]) = weight[h] @ latents[j]
    out[t, h] = sum_j softmax_j(scale * (q[t, h] . k[j, h] + q_rope[t, h] . keys[j])) * v[j, h]

    Shapes: q (tokens, heads, key); q_rope, latents, keys as in ``latent_attention``; weight (heads, key + value, rank).
    """
    out: list[list[list[float]]] = [[] for _ in q]
    for h, matrix in enumerate(weight):
        made = [[dot(row, latent) for row in matrix] for latent in latents]
        for t, heads in enumerate(q):
            width, seen = len(heads[h]), range(len(latents) - len(q) + t + 1)
            scores = [scale * (dot(heads[h], made[j][:width]) + dot(q_rope[t][h], keys[j])) for j in seen]
            out[t].append(weighted(scores, [row[width:] for row in made]))
    return out


def weighted(scores: Sequence[float], rows: Rows) -> list[float]:
    """Return the sum of the rows, each times its share in the softmax of the scores."""
    top = max(scores)
    chances = [math.exp(s - top) for s in scores]
    total = math.fsum(chances)
    return [math.fsum(p * row[i] for p, row in zip(chances, rows, strict=False)) / total for i in range(len(rows[0]))]


def dot(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the sum of products."""
    return math.fsum(a * b for a, b in zip(x, y, strict=True))
