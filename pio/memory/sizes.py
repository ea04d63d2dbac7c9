"""Sizes in words."""

from __future__ import annotations


def format_bytes(nbytes: int) -> str:
    """Return a size in words, such as ``"1.5 GiB (1610612736 bytes)"``."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if nbytes >= 1 << shift:
            return f"{nbytes / (1 << shift):.4g} {unit} ({nbytes} bytes)"
    return f"{nbytes} bytes"
