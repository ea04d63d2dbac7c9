"""A mixture of experts: for every token, every one of its experts, in a loop."""

from __future__ import annotations

from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def expert_linears(x: Rows, ids: Sequence[Sequence[int]], weights: Sequence[Rows]) -> list[list[list[float]]]:
    """Return ``weights[expert] @ x[token]`` for each expert of each token, by token and rank."""
    return [
        [[sum(a * b for a, b in zip(row, column, strict=True)) for column in weights[expert]] for expert in experts]
        for row, experts in zip(x, ids, strict=True)
    ]


def add_choices(out: Rows, y: Sequence[Rows], weights: Rows) -> list[list[float]]:
    """Return out with the outputs of each token's experts added, weighted."""
    return [
        [old + sum(w * said[c] for w, said in zip(factors, rows, strict=True)) for c, old in enumerate(row)]
        for row, rows, factors in zip(out, y, weights, strict=True)
    ]
