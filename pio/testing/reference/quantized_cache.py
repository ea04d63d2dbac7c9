"""Keys and values of eight bits, and where a cache has them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

GROUP, BLOCK, OUTPUTS = 32, 32, 16  # numbers that share a scale; positions of a block; of half a block
PAIR = 64 + 2 * GROUP * OUTPUTS  # bytes of two groups of sixteen positions, with their scales
LARGEST = 127
SMALLEST = 1e-30  # a value of nothing larger counts as zeros
LEAST = -24  # exponent of a key's smallest scale


class Rounded(NamedTuple):
    """Numbers that share a scale: value = scale * number."""

    scale: float
    numbers: list[int]


def round_value(v: Sequence[float]) -> Rounded:
    """Return numbers up to 127 either way with one scale."""
    largest = max(abs(x) for x in v)
    return Rounded(largest / LARGEST, [round(x / largest * LARGEST) if largest > SMALLEST else 0 for x in v])


def round_key(k: Sequence[float]) -> list[Rounded]:
    """Return groups of 32 numbers, zeros behind the last.

    Scales are the least powers of two with which no number rounds to more than 127.
    """
    out: list[Rounded] = []
    for at in range(0, len(k), GROUP):
        group, exponent = [*k[at : at + GROUP], *[0.0] * (at + GROUP - len(k))], LEAST
        while max(abs(x) for x in group) >= math.ldexp(127.5, exponent):
            exponent += 1
        out.append(Rounded(math.ldexp(1.0, exponent), [round(math.ldexp(x, -exponent)) for x in group]))
    return out


def read_key(block: bytes, slot: int, head_dim: int) -> list[Rounded]:
    """Return the key of one position in a cache block of one head.

    Sixteen positions after the other; of each, for every two groups: scales float16 (2, 16), then for each group bytes
    (8, 16, 4), byte j of position o in eighth e the number 4 e + j, and 128.
    """
    pairs = len(block) // (2 * PAIR)
    half, o = divmod(slot, OUTPUTS)
    out: list[Rounded] = []
    for g in range(-(-head_dim // GROUP)):
        at = (half * pairs + g // 2) * PAIR
        (scale,) = struct.unpack_from("<e", block, at + 2 * (OUTPUTS * (g % 2) + o))
        start = at + 64 + g % 2 * GROUP * OUTPUTS
        out.append(Rounded(scale, [block[start + 64 * (i // 4) + 4 * o + i % 4] - 128 for i in range(GROUP)]))
    return out


def read_value(block: bytes, slot: int, head_dim: int) -> Rounded:
    """Return the value of one position in a cache block of one head: int8 (8, width, 4), then scales float32 (32,)."""
    width = len(block) // BLOCK - 4
    (scale,) = struct.unpack_from("<f", block, BLOCK * width + 4 * slot)
    at = slot // 4 * 4 * width + slot % 4
    return Rounded(scale, [struct.unpack_from("<b", block, at + 4 * i)[0] for i in range(head_dim)])
