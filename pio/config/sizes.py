"""Sizes in bytes that people write."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_UNITS: Final = ("", "k", "m", "g", "t")
_BASES: Final = ((1024, "iB"), (1000, "B"))
_NUMBER: Final = r"[0-9]{1,20}(?:_[0-9]{1,20}){0,8}(?:\.[0-9]{1,20})?"
_SIZE: Final = re.compile(rf"\s*({_NUMBER})\s*(?:([kmgt])(i?))?b?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes that a text names: ``"4GB"``, ``"1.5 GiB"``, ``"512M"``, ``"1000000"``.

    Units are powers of 1000 as in the rest of pio, and with an i powers of 1024; upper and lower case are the same.

    Raises:
        ValueError: It names no size; the message says what was expected.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("expected a number of bytes, or one with a unit such as '4GB' or '512MiB'")
    return int(Decimal(found[1]) * (1024 if found[3] else 1000) ** _UNITS.index((found[2] or "").lower()))


def size_text(count: int) -> str:
    """Return bytes as people write them, in the largest unit of which they are whole: "4GiB", "20GB", "5"."""
    ways = ((base**power, f"{'kMGT'[power - 1]}{unit}") for power in (4, 3, 2, 1) for base, unit in _BASES)
    return next((f"{count // size}{unit}" for size, unit in ways if count and count % size == 0), str(count))
