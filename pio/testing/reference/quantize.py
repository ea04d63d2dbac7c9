"""Activations as int8 by groups of 32, with powers of two as scales."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

GROUP = 32
LEAST = -102  # exponent of the smallest scale


class Group(NamedTuple):
    """Thirty-two numbers and their scale: value = scale * number; total is the sum of the numbers."""

    scale: float
    numbers: list[int]
    total: int


def power(values: Sequence[float], least: int) -> float:
    """Return the smallest power of two, 2^least or more, in whose steps no value rounds to more than 127."""
    exponent = least
    while max(abs(v) for v in values) >= math.ldexp(127.5, exponent):
        exponent += 1
    return math.ldexp(1.0, exponent)


def quantize(row: Sequence[float], least: int = LEAST) -> list[Group]:
    """Return the groups of one row, zeros behind it up to an even number of groups."""
    padded = [*row, *[0.0] * (-len(row) % (2 * GROUP))]
    out: list[Group] = []
    for start in range(0, len(padded), GROUP):
        values = padded[start : start + GROUP]
        scale = power(values, least)
        numbers = [round(v / scale) for v in values]
        out.append(Group(scale, numbers, sum(numbers)))
    return out


def read_records(data: bytes, offset: int, minima: bool) -> tuple[float, list[Group]]:
    """Return from what a row's sums start, and its groups as stored: 80 bytes for two of them, behind 16.

    The total is what stands behind the exponents, taken back to the sum of the numbers.
    """
    out: list[Group] = []
    for start in range(16, len(data), 80):
        numbers = struct.unpack_from("<64b", data, start)
        exponents = struct.unpack_from("<2i", data, start + 64)
        ends = struct.unpack_from("<2f" if minima else "<2i", data, start + 72)
        for g, (exponent, end) in enumerate(zip(exponents, ends, strict=True)):
            if exponent % (1 << 23):
                raise ValueError(f"{exponent} is no exponent")
            scale = math.ldexp(1.0, exponent >> 23)
            total, rest = divmod(end, scale if minima else -offset)
            if rest:
                raise ValueError(f"{end} is no multiple of {scale if minima else offset}")
            out.append(Group(scale, list(numbers[GROUP * g : GROUP * (g + 1)]), int(total)))
    return struct.unpack_from("<f", data)[0], out
