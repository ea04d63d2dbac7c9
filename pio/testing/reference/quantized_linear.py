"""Linear layers with quantized weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]
GROUP = 32
LEAST = -102  # exponent of the smallest step


def quantized_linear(
    x: Rows, weight: Rows, bias: Sequence[float] | None = None, old: Rows | None = None
) -> list[list[float]]:
    """Return ``q(x) @ weight.T + bias + old``; q rounds each group of 32 inputs to up to 127 steps either way."""
    rounded = [round_row(row) for row in x]
    out: list[list[float]] = []
    for r, row in enumerate(rounded):
        sums = [math.fsum(a * b for a, b in zip(row, w, strict=True)) for w in weight]
        shift = bias if bias is not None else [0.0] * len(weight)
        before = old[r] if old is not None else [0.0] * len(weight)
        out.append([s + b + o for s, b, o in zip(sums, shift, before, strict=True)])
    return out


def round_row(row: Sequence[float]) -> list[float]:
    """Return each number as the nearest whole multiple of its group's step."""
    out: list[float] = []
    for step, group in zip(steps(row), _groups(row), strict=True):
        out += [round(v / step) * step for v in group]
    return out


def steps(row: Sequence[float]) -> list[float]:
    """Return the step of each group: the least power of two with which no number rounds to more than 127."""
    out: list[float] = []
    for group in _groups(row):
        exponent = LEAST
        while max(abs(v) for v in group) >= math.ldexp(127.5, exponent):
            exponent += 1
        out.append(math.ldexp(1.0, exponent))
    return out


def _groups(row: Sequence[float]) -> list[Sequence[float]]:
    return [row[at : at + GROUP] for at in range(0, len(row), GROUP)]
