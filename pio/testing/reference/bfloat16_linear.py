"""Linear layers of inputs rounded to bfloat16."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def bfloat16(x: float) -> float:
    """Return a float32 rounded to the upper half of its bits, to nearest, halves to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    if x != x or bits & 0xFFFF == 0:
        return x
    low, high = bits >> 16, (bits >> 16) + 1
    rest = bits & 0xFFFF
    up = rest > 0x8000 or (rest == 0x8000 and low % 2 == 1)
    return struct.unpack("<f", struct.pack("<I", (high if up else low) << 16))[0]


def bfloat16_linear(
    x: Rows, weight: Rows, bias: Sequence[float] | None = None, old: Rows | None = None
) -> list[list[float]]:
    """Return ``bfloat16(x) @ weight.T + bias + old``."""
    out: list[list[float]] = []
    for r, row in enumerate(x):
        rounded = [bfloat16(v) for v in row]
        sums = [math.fsum(a * b for a, b in zip(rounded, w, strict=True)) for w in weight]
        shift = bias if bias is not None else [0.0] * len(weight)
        before = old[r] if old is not None else [0.0] * len(weight)
        out.append([s + b + o for s, b, o in zip(sums, shift, before, strict=True)])
    return out
