"""Reading and multiplying-adding, one element after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence


def read_all(x: Sequence[float], parts: int, step: int = 128) -> list[float]:
    """Return the sum of each part's whole steps."""
    out: list[float] = []
    for part in range(parts):
        first, last = part * len(x) // parts, (part + 1) * len(x) // parts
        out.append(math.fsum(x[first : first + (last - first) // step * step]))
    return out


def fma_all(rounds: int, x: float, y: float, parts: int, chains: int, lanes: int = 16) -> list[float]:
    """Return the sum of each part's chains: start + j, then times x plus y, again and again."""
    out: list[float] = []
    for part in range(parts):
        ends: list[float] = []
        for chain in range(chains):
            value = float(part + chain)
            for _ in range(rounds):
                value = value * x + y
            ends.append(value)
        out.append(lanes * math.fsum(ends))
    return out
