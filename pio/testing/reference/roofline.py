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


def dot_all(rounds: int, start: int, parts: int, chains: int, products: int = 4, lanes: int = 16) -> list[int]:
    """Return the sum of each part's chains of so many products a lane, as 32 bits hold it."""
    out: list[int] = []
    for part in range(parts):
        total = 0
        for chain in range(chains):
            for i in range(rounds):
                byte = (start + part + i) & 255
                total += lanes * products * (chain + 1) * (byte - 256 if byte > 127 else byte)
        total &= (1 << 32) - 1
        out.append(total - (1 << 32) if total >> 31 else total)
    return out


def tile_all(rounds: int, start: int, parts: int) -> list[int]:
    """Return the sum of each part's products of two tiles by two, of 16 rows of 64 equal bytes, as 32 bits hold it."""
    out: list[int] = []
    for part in range(parts):
        total = 0
        for i in range(2):
            byte = (start + part + i) & 255
            for j in range(2):
                total += rounds * 16 * 16 * 64 * (byte - 256 if byte > 127 else byte) * (j + 1)
        total &= (1 << 32) - 1
        out.append(total - (1 << 32) if total >> 31 else total)
    return out


def pair_all(rounds: int, x: float, parts: int, chains: int, lanes: int = 16) -> list[float]:
    """Return the sum of each part's chains of two products a lane, each twice the part's number."""
    return [float(lanes * chains * rounds * sum(2 * (x + part) for _ in range(2))) for part in range(parts)]
