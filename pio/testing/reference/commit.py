"""What tokens that stand make of the states of recurrent layers, as the definition says it, in float64."""

from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def commit_delta(state: Matrix, learned: Matrix, keys: Matrix, decay: Sequence[float]) -> list[list[float]]:
    """Return what the state of a head becomes: ``S = decay[t] * S + outer(keys[t], learned[t])`` for each token.

    Shapes: state (dim, value_dim); learned (tokens, value_dim); keys (tokens, dim); decay (tokens,).
    """
    now = [list(row) for row in state]
    for lesson, key, kept in zip(learned, keys, decay, strict=True):
        now = [
            [kept * x + weight * new for x, new in zip(row, lesson, strict=True)]
            for row, weight in zip(now, key, strict=True)
        ]
    return now


def commit_inputs(state: Matrix, inputs: Matrix) -> list[list[float]]:
    """Return the last inputs of a convolution behind those that follow, as many as before.

    Shapes: state (width - 1, channels); inputs (tokens, channels).
    """
    rows = [*map(list, state), *map(list, inputs)]
    return rows[len(rows) - len(state) :]
