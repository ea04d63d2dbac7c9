"""Pictures by an integer formula: the makers of fixtures and the tests have the same without storing them."""

from __future__ import annotations


def level(x: int, y: int, channel: int, seed: int) -> int:
    """A value of 0 to 254: ramps that turn back at their ends, under a coarse pattern of blocks."""
    ramp = (x * (3 + seed % 5) + y * (2 + seed % 7) + 85 * channel + 37 * seed) % 512
    ramp = min(ramp, 511 - ramp)
    block = (40 * (x // 7 ^ y // 5) + 11 * seed * (channel + 1)) & 63
    return (3 * ramp + 4 * block) // 4


def pixels(width: int, height: int, channels: int = 3, seed: int = 0) -> bytes:
    """Return uint8 (height, width, channels), row by row."""
    return bytes(level(x, y, c, seed) for y in range(height) for x in range(width) for c in range(channels))
