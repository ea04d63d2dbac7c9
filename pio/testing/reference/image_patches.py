"""Naive patches of a picture or a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def image_patches(
    frames: Any, *, patch: int, temporal: int, merge: int, mean: Sequence[float], std: Sequence[float]
) -> list[list[float]]:
    """Return all rows of the patch matrix of frames (count, height, width, 3)."""
    count, height, width = len(frames), len(frames[0]), len(frames[0][0])
    side = patch * merge

    def row(step: Sequence[Any], top: int, left: int) -> list[float]:
        places = [(top + i, left + j) for i in range(patch) for j in range(patch)]
        return [(frame[y][x][c] / 255 - mean[c]) / std[c] for c in range(3) for frame in step for y, x in places]

    return [
        row([frames[min(first + k, count - 1)] for k in range(temporal)], top, left)
        for first in range(0, count, temporal)
        for y in range(0, height, side)
        for x in range(0, width, side)
        for top in range(y, y + side, patch)
        for left in range(x, x + side, patch)
    ]
