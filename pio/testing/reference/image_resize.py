"""Naive resizing of pictures: weights from the definition of the filters, two passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any


def bicubic(x: float) -> float:
    """Return the cubic convolution with a = -1/2 at a distance."""
    a, x = -0.5, abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def bilinear(x: float) -> float:
    """Return a triangle of height and half width 1 at a distance."""
    return max(0.0, 1 - abs(x))


FILTERS: dict[str, tuple[Callable[[float], float], int]] = {"bicubic": (bicubic, 2), "bilinear": (bilinear, 1)}


def weights(size: int, out_size: int, filter: str, antialias: bool = True) -> list[list[float]]:
    """Return for each pixel of a resized line what each of the line's pixels weighs."""
    at, reach = FILTERS[filter]
    scale = Fraction(size, out_size)
    width = max(scale, Fraction(1)) if antialias else Fraction(1)
    rows: list[list[float]] = []
    for i in range(out_size):
        center = (i + Fraction(1, 2)) * scale
        # a pixel counts where its middle, rounded to a border of pixels, is within reach
        first = math.floor(center - reach * width + Fraction(1, 2))
        last = math.floor(center + reach * width + Fraction(1, 2))
        inside = [at(float((j - center + Fraction(1, 2)) / width)) if first <= j < last else 0.0 for j in range(size)]
        total = sum(inside)
        rows.append([w / total for w in inside])
    return rows


def image_resize(
    image: Any, height: int, width: int, *, filter: str = "bicubic", antialias: bool = True, whole: bool = False
) -> list[list[list[float]]]:
    """Resize a picture (rows, columns, channels); with ``whole`` each pass rounds, and clips to bytes."""
    rows, columns = len(image), len(image[0])

    def value(total: float) -> float:
        return min(max(math.floor(total + 0.5), 0), 255) if whole else total

    def across(picture: Any) -> Any:
        if width == columns:
            return picture
        made = weights(columns, width, filter, antialias)
        channels = range(len(picture[0][0]))
        return [
            [[value(sum(w * p[c] for w, p in zip(line, row, strict=True))) for c in channels] for line in made]
            for row in picture
        ]

    def down(picture: Any) -> Any:
        if height == rows:
            return picture
        turned = [list(column) for column in zip(*picture, strict=True)]
        made = weights(rows, height, filter, antialias)
        channels = range(len(picture[0][0]))
        columns_made = [
            [[value(sum(w * p[c] for w, p in zip(line, column, strict=True))) for c in channels] for line in made]
            for column in turned
        ]
        return [list(row) for row in zip(*columns_made, strict=True)]

    if rows > height and rows - height > 2 * (columns - width):
        return across(down(image))
    return down(across(image))
