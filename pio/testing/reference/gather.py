"""Rows chosen by index."""

from __future__ import annotations

from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def gather(table: Rows, indices: Sequence[int]) -> list[list[float]]:
    """Return ``table[i]`` for every index."""
    return [list(table[i]) for i in indices]


def place_rows(out: Rows, rows: Sequence[Sequence[float] | None]) -> list[list[float]]:
    """Return out with each row that is given in the place of its own."""
    return [list(own if row is None else row) for own, row in zip(out, rows, strict=True)]


def add_rows(out: Rows, rows: Sequence[Sequence[float] | None]) -> list[list[float]]:
    """Return out with each row that is given added to its own."""
    return [
        list(own) if row is None else [a + b for a, b in zip(own, row, strict=True)]
        for own, row in zip(out, rows, strict=True)
    ]


def scatter_add(
    out: Rows, indices: Sequence[int], rows: Rows, scales: Sequence[float] | None = None
) -> list[list[float]]:
    """Return out with ``scales[i] * rows[i]`` added to row ``indices[i]``; scales are 1 where none are given."""
    total = [list(row) for row in out]
    for k, i in enumerate(indices):
        scale = scales[k] if scales is not None else 1.0
        total[i] = [t + scale * v for t, v in zip(total[i], rows[k], strict=True)]
    return total


def gather_by_value(x: Rows, keys: Sequence[int], value: int) -> tuple[list[list[float]], list[int]]:
    """Return the rows whose key has the value, and their positions."""
    indices = [i for i, key in enumerate(keys) if key == value]
    return gather(x, indices), indices
