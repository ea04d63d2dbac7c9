"""Naive red, green and blue of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def image_rgb(image: Any, background: Sequence[int], *, floats: bool) -> list[list[list[int]]]:
    """Return rows of pixels of rows of pixels of one, three or four numbers, with the last of four as alpha."""

    def whole(value: float) -> float:
        return float(int(255.0 * value + 0.5)) if floats else value

    def made(pixel: Sequence[float]) -> list[int]:
        colours = [whole(v) for v in (pixel[:3] if len(pixel) > 1 else [pixel[0]] * 3)]
        alpha = whole(pixel[3]) / 255 if len(pixel) == 4 else 1.0
        return [int(alpha * v + (1 - alpha) * b + 0.5) for v, b in zip(colours, background, strict=True)]

    return [[made(pixel) for pixel in row] for row in image]
