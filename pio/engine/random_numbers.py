"""Seeds: one for each request, and one derived from it for each of its answers."""

from __future__ import annotations

import os
from typing import Final

_MASK: Final = 2**64 - 1


def fresh_seed() -> int:
    """Return an unpredictable seed below 2**64."""
    return int.from_bytes(os.urandom(8), "little")


def derive_seed(seed: int, index: int) -> int:
    """Return the seed of answer ``index``; answer 0 keeps the request's own, so n=1 and n=3 begin alike."""
    return seed if index == 0 else mix(seed + index * 0x9E3779B97F4A7C15)


def mix(x: int) -> int:
    """Scramble 64 bits so that neighbours have nothing in common (the finaliser of splitmix64)."""
    x &= _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def uniform(mixed: int, index: int) -> float:
    """Return random number ``index`` of a seed, 0 <= u < 1, which depends on nothing else that was drawn.

    Args:
        mixed: What ``mix`` makes of the seed, once for all numbers.
        index: Which number.
    """
    x = mixed + (index + 1) * 0x9E3779B97F4A7C15 & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return ((x ^ x >> 31) >> 11) * 2.0**-53
