"""Embeddings of places in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

Rows = Sequence[Sequence[float]]


def places(height: int, width: int, merge: int) -> list[tuple[int, int]]:
    """Return the places of a grid block by block, the blocks row by row."""
    return [
        (top + y, left + x)
        for top in range(0, height, merge)
        for left in range(0, width, merge)
        for y in range(merge)
        for x in range(merge)
    ]


def grid_embedding(table: Rows, grid: tuple[int, int], place: tuple[int, int]) -> list[float]:
    """Return what a place of a grid reads of a square table: linear between rows, then between columns."""
    side = isqrt(len(table))
    (y, high), (x, wide) = ((place[i], grid[i]) for i in range(2))
    down = y * (side - 1) / (high - 1) if high > 1 else 0.0
    along = x * (side - 1) / (wide - 1) if wide > 1 else 0.0
    rows: list[list[float]] = []
    for row in (int(down), min(int(down) + 1, side - 1)):
        left, right = (table[row * side + min(int(along) + i, side - 1)] for i in range(2))
        rows.append([a + (along - int(along)) * (b - a) for a, b in zip(left, right, strict=True)])
    return [a + (down - int(down)) * (b - a) for a, b in zip(*rows, strict=True)]
