"""Pictures by an integer formula: the makers of fixtures and the tests have the same without storing them."""

from __future__ import annotations

from typing import Any

MODES = ("RGB", "L", "RGBA", "LA", "P", "CMYK", "I;16", "1")
SAMPLES = 64


def level(x: int, y: int, channel: int, seed: int) -> int:
    """A value of 0 to 254: ramps that turn back at their ends, under a coarse pattern of blocks."""
    ramp = (x * (3 + seed % 5) + y * (2 + seed % 7) + 85 * channel + 37 * seed) % 512
    ramp = min(ramp, 511 - ramp)
    block = (40 * (x // 7 ^ y // 5) + 11 * seed * (channel + 1)) & 63
    return (3 * ramp + 4 * block) // 4


def pixels(width: int, height: int, channels: int = 3, seed: int = 0) -> bytes:
    """Return uint8 (height, width, channels), row by row."""
    return bytes(level(x, y, c, seed) for y in range(height) for x in range(width) for c in range(channels))


def picture(mode: str, width: int, height: int, seed: int = 0) -> Any:
    """Return a PIL image of a mode in MODES.

    Channels of "RGB", "L", "RGBA", "LA" and "CMYK" are those of `level`. "P" has the indices `level(channel=0)` into a
    palette whose entry i is (i, 255 - i, 7 * i % 256). "I;16" has 3 * `level` // 2, so that a part of it lies above
    255. "1" is white where `level` is 128 or more.
    """
    from PIL import Image

    if mode in ("RGB", "L", "RGBA", "LA", "CMYK"):
        return Image.frombytes(mode, (width, height), pixels(width, height, len(mode), seed))
    values = pixels(width, height, 1, seed)
    if mode == "I;16":
        return Image.frombytes(mode, (width, height), b"".join((3 * v // 2).to_bytes(2, "little") for v in values))
    if mode == "1":
        return Image.frombytes("L", (width, height), bytes(255 * (v >> 7) for v in values)).convert("1")
    image = Image.frombytes("P", (width, height), values)
    image.putpalette([part for i in range(256) for part in (i, 255 - i, 7 * i % 256)])
    return image


def suffix(mode: str) -> str:
    """Return the format that stores a mode without loss."""
    return ".tif" if mode == "CMYK" else ".png"


def places(total: int) -> list[int]:
    """Return which SAMPLES values of a flat patch matrix are stored: one in each of as many equal parts."""
    part = total // SAMPLES
    return [i * part + (i * 7919 + 13) % part for i in range(SAMPLES)]


def table_value(row: int, column: int, channel: int, side: int = 48) -> float:
    """Return an entry of the position table of positions.json: two ramps, their product, and five of noise."""
    if channel < 3:
        return (float(row), float(column), row * column / (side - 1))[channel]
    return ((row * side + column) * 40503 + channel * 30011) * 2654435761 % (1 << 32) / (1 << 32) - 0.5
