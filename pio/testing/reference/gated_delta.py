"""The gated delta rule as its definition says it, token by token, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

Row = Sequence[float]
Matrix = Sequence[Row]


def sigmoid(x: float) -> float:
    """Return ``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + math.exp(-x)) if x > 0 else math.exp(x) / (1.0 + math.exp(x))


def softplus(x: float) -> float:
    """Return ``log(1 + exp(x))``."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def delta_gates(b: Matrix, a: Matrix, a_log: Row, dt_bias: Row) -> tuple[list[list[float]], list[list[float]]]:
    """Return ``sigmoid(b)`` and ``exp(-exp(a_log) * softplus(a + dt_bias))`` by tokens and heads."""
    beta = [[sigmoid(x) for x in row] for row in b]
    decay = [
        [math.exp(-math.exp(rate) * softplus(x + bias)) for x, rate, bias in zip(row, a_log, dt_bias, strict=True)]
        for row in a
    ]
    return beta, decay


def gated_delta(
    q: Sequence[Matrix],
    k: Sequence[Matrix],
    v: Sequence[Matrix],
    decay: Matrix,
    beta: Matrix,
    state: Sequence[Matrix],
    eps: float,
) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Walk the tokens of one sequence; return the outputs and the state behind the last token.

    Shapes: q, k (tokens, key_heads, dim); v (tokens, heads, value_dim); decay, beta (tokens, heads); state
    (heads, dim, value_dim).
    """
    now = [[list(row) for row in head] for head in state]
    group = len(state) // len(q[0])
    out: list[list[list[float]]] = []
    for t in range(len(q)):
        read: list[list[float]] = []
        for h, matrix in enumerate(now):
            key, query = unit(k[t][h // group], eps), unit(q[t][h // group], eps)
            for row in matrix:
                row[:] = [decay[t][h] * x for x in row]
            recalled = [
                math.fsum(a * b for a, b in zip(key, column, strict=True)) for column in zip(*matrix, strict=True)
            ]
            learned = [beta[t][h] * (x - r) for x, r in zip(v[t][h], recalled, strict=True)]
            for i, row in enumerate(matrix):
                row[:] = [x + key[i] * d for x, d in zip(row, learned, strict=True)]
            total = [
                math.fsum(a * b for a, b in zip(query, column, strict=True)) for column in zip(*matrix, strict=True)
            ]
            read.append([x / math.sqrt(len(query)) for x in total])
        out.append(read)
    return out, now


def unit(x: Row, eps: float) -> list[float]:
    """Return ``x / sqrt(sum(x²) + eps)``."""
    length = math.sqrt(math.fsum(a * a for a in x) + eps)
    return [a / length for a in x]
