"""Latents and shared keys of eight bits, and where a cache has them."""

from __future__ import annotations

import struct
from typing import NamedTuple

GROUP, PAIR, BLOCK, OUTPUTS = 32, 64, 32, 16  # numbers of a group, of two; positions of a block, of half a block
PAIR_BYTES = 2 * 2 * OUTPUTS + PAIR * OUTPUTS  # scales, then numbers


class Rounded(NamedTuple):
    """Numbers that share a scale: value = scale * number."""

    scale: float
    numbers: list[int]


def block_bytes(rank: int, rope_dim: int) -> int:
    """Return the bytes of a block: each part takes whole pairs of groups."""
    return BLOCK // OUTPUTS * (-(-rank // PAIR) + -(-rope_dim // PAIR)) * PAIR_BYTES


def read(block: bytes, slot: int, rank: int, rope_dim: int) -> tuple[list[Rounded], list[Rounded]]:
    """Return the latent and the key of one position in a block, by groups of 32, zeros behind the last number.

    Sixteen positions after the other; of each, pairs of groups: scales float16 (2, 16), then bytes (16, 16, 4), byte j
    of position o in sixteenth e the number 4 e + j, and 128.
    """
    half, o = divmod(slot, OUTPUTS)
    parts = [-(-rank // PAIR), -(-rope_dim // PAIR)]
    out: list[list[Rounded]] = []
    at = half * sum(parts) * PAIR_BYTES
    for pairs in parts:
        groups: list[Rounded] = []
        for g in range(2 * pairs):
            pair = at + g // 2 * PAIR_BYTES
            (scale,) = struct.unpack_from("<e", block, pair + 2 * (OUTPUTS * (g % 2) + o))
            start = pair + 4 * OUTPUTS + g % 2 * GROUP * OUTPUTS
            numbers = [block[start + 64 * (i // 4) + 4 * o + i % 4] - 128 for i in range(GROUP)]
            groups.append(Rounded(scale, numbers))
        out.append(groups)
        at += pairs * PAIR_BYTES
    return out[0], out[1]


def padded(row: list[float]) -> list[float]:
    """Return numbers, zeros behind them up to whole pairs of groups."""
    return [*row, *[0.0] * (-len(row) % PAIR)]
