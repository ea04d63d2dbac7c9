"""Weights in quantized blocks: reading them, and how little a group can lose."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

OUTPUTS = 16  # of a block
GROUP = 32
OFFSETS = {"int8": 128, "int4": 8, "int4_zero_point": 0}


class Group(NamedTuple):
    """Thirty-two stored numbers of one output: weight = scale * (stored - offset) + minimum."""

    scale: float
    minimum: float
    stored: list[int]
    offset: int

    @property
    def weights(self) -> list[float]:
        """What the numbers stand for."""
        return [self.scale * (q - self.offset) + self.minimum for q in self.stored]


def unpack(data: bytes, rows: int, columns: int, form: str) -> list[list[Group]]:
    """Return the groups of each row, missing ones of the last pair included."""
    bits, minima = (8 if form == "int8" else 4), form == "int4_zero_point"
    pairs = -(-columns // (2 * GROUP))
    header = 2 * OUTPUTS * 2 * (2 if minima else 1)
    group_bytes = GROUP * OUTPUTS * bits // 8
    length = header + 2 * group_bytes
    out: list[list[Group]] = []
    for row in range(rows):
        groups: list[Group] = []
        for pair in range(pairs):
            start = (row // OUTPUTS * pairs + pair) * length
            halves = struct.unpack_from(f"<{header // 2}e", data, start)
            for g in range(2):
                place = OUTPUTS * g + row % OUTPUTS
                minimum = halves[2 * OUTPUTS + place] if minima else 0.0
                at = start + header + g * group_bytes
                numbers = data[at : at + group_bytes]
                read = _bytes if bits == 8 else _nibbles
                groups.append(Group(halves[place], minimum, read(numbers, row % OUTPUTS), OFFSETS[form]))
        out.append(groups)
    return out


def _bytes(numbers: bytes, output: int) -> list[int]:
    """Eighths of four inputs for each output."""
    return [byte for q in range(8) for byte in numbers[64 * q + 4 * output : 64 * q + 4 * output + 4]]


def _nibbles(numbers: bytes, output: int) -> list[int]:
    """Quarters of eight inputs for each output: the first four in the low nibbles."""
    out: list[int] = []
    for q in range(4):
        four = numbers[64 * q + 4 * output : 64 * q + 4 * output + 4]
        out += [byte % 16 for byte in four]
        out += [byte // 16 for byte in four]
    return out


def loss(weights: Sequence[float], found: Sequence[float]) -> float:
    """Return the sum of squared differences."""
    return math.fsum((a - b) ** 2 for a, b in zip(weights, found, strict=True))


def rounded(weights: Sequence[float], scale: float, minimum: float, low: int, high: int) -> list[float]:
    """Return the nearest that ``scale * q + minimum`` can be with whole low <= q <= high."""
    if scale == 0.0:
        return [minimum] * len(weights)
    return [scale * min(max(round((w - minimum) / scale), low), high) + minimum for w in weights]


def plain_scale(weights: Sequence[float], offset: int) -> float:
    """Return the scale that makes the largest weight -offset."""
    return -max(weights, key=abs) / offset


def plain_line(weights: Sequence[float]) -> tuple[float, float]:
    """Return the scale and the minimum that make the least weight 0 and the largest 15."""
    return (max(weights) - min(weights)) / 15, min(weights)


def least_loss(weights: Sequence[float], offset: int, steps: int = 300) -> float:
    """Return the least that any of many scales of both signs loses."""
    largest, best = max(abs(w) for w in weights), math.fsum(w * w for w in weights)
    for i in range(1, steps + 1):
        scale = 1.6 * largest / offset * i / steps
        for signed in (scale, -scale):
            best = min(best, loss(weights, rounded(weights, signed, 0.0, -offset, offset - 1)))
    return best


def least_line_loss(weights: Sequence[float], steps: int = 16) -> float:
    """Return the least that any of many ranges loses, after each range's numbers have got their best line."""
    low, high = min(weights), max(weights)
    width, n = high - low, len(weights)
    mean = math.fsum(weights) / n
    best = loss(weights, [mean] * n)
    if width == 0.0:
        return best
    for i in range(steps):
        for j in range(steps):
            first, last = low + 0.3 * width * i / steps - 0.05 * width, high - 0.3 * width * j / steps + 0.05 * width
            scale = (last - first) / 15
            q = [min(max(round((w - first) / scale), 0), 15) for w in weights]
            middle = sum(q) / n
            spread = math.fsum((a - middle) ** 2 for a in q)
            if spread == 0.0:
                continue
            slope = math.fsum(w * (a - middle) for w, a in zip(weights, q, strict=True)) / spread
            best = min(best, loss(weights, [slope * (a - middle) + mean for a in q]))
    return best
