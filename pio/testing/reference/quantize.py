"""Activations as int8 by groups of 32."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

GROUP = 32
SMALLEST = 1e-30  # a group of nothing larger counts as zeros


class Group(NamedTuple):
    """Thirty-two numbers and their scale: value = scale * number; total is the sum of the numbers."""

    scale: float
    numbers: list[int]
    total: int


def quantize(row: Sequence[float]) -> list[Group]:
    """Return the groups of one row, zeros behind it up to an even number of groups."""
    padded = [*row, *[0.0] * (-len(row) % (2 * GROUP))]
    out: list[Group] = []
    for start in range(0, len(padded), GROUP):
        values = padded[start : start + GROUP]
        largest = max(abs(v) for v in values)
        scale = largest / 127 if largest > SMALLEST else 0.0
        numbers = [round(v / scale) if scale else 0 for v in values]
        out.append(Group(scale, numbers, sum(numbers)))
    return out


def read_records(data: bytes, offset: int, minima: bool) -> list[Group]:
    """Return the groups of one row as stored: 80 bytes for two groups.

    The total is what stands behind the scales, taken back to the sum of the numbers.
    """
    out: list[Group] = []
    for start in range(0, len(data), 80):
        numbers = struct.unpack_from("<64b", data, start)
        scales = struct.unpack_from("<2f", data, start + 64)
        ends = struct.unpack_from("<2f" if minima else "<2i", data, start + 72)
        for g, (scale, end) in enumerate(zip(scales, ends, strict=True)):
            if minima:
                total = round(end / scale) if scale else 0
            else:
                total, rest = divmod(end, -offset)
                if rest:
                    raise ValueError(f"{end} is no multiple of {offset}")
            out.append(Group(scale, list(numbers[GROUP * g : GROUP * (g + 1)]), total))
    return out
