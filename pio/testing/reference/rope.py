"""Rotary position embedding."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

Heads = Sequence[Sequence[Sequence[float]]]


def rope_table(
    positions: Sequence[int], inv_freq: Sequence[float], scale: float = 1.0
) -> tuple[list[list[float]], list[list[float]]]:
    """Return cosines and sines of every position times every frequency; the angle is rounded to float32."""
    angles = [[_single(_single(position) * f) for f in inv_freq] for position in positions]
    cos = [[math.cos(a) * scale for a in row] for row in angles]
    return cos, [[math.sin(a) * scale for a in row] for row in angles]


def rope_table_of_axes(
    positions: Sequence[Sequence[int]], inv_freq: Sequence[float], axes: Sequence[int]
) -> tuple[list[list[float]], list[list[float]]]:
    """Return cosines and sines where each frequency turns by the position on an axis of its own."""
    tables = [rope_table(axis, inv_freq) for axis in positions]
    picked = [
        [[tables[axis][which][t][i] for i, axis in enumerate(axes)] for t in range(len(positions[0]))]
        for which in range(2)
    ]
    return picked[0], picked[1]


def rope(
    x: Heads, cos: Sequence[Sequence[float]], sin: Sequence[Sequence[float]], interleaved: bool = False
) -> list[list[list[float]]]:
    """Return every head of every token turned by the token's angles, pair by pair, as complex numbers."""
    return [
        [_turn(head, [complex(c, s) for c, s in zip(*turns, strict=True)], interleaved) for head in heads]
        for heads, *turns in zip(x, cos, sin, strict=True)
    ]


def qk_norm_rope(
    heads: Heads, weight: Sequence[float] | None, cos: Sequence[Sequence[float]], sin: Sequence[Sequence[float]],
    eps: float, interleaved: bool = False,
) -> list[list[list[float]]]:  # fmt: skip
    """Return queries or keys turned, where there is a weight behind a norm of each head by its root mean square."""
    if weight is not None:
        heads = [[_normed(head, weight, eps) for head in token] for token in heads]
    return rope(heads, cos, sin, interleaved)


def _normed(head: Sequence[float], weight: Sequence[float], eps: float) -> list[float]:
    root = math.sqrt(math.fsum(x * x for x in head) / len(head) + eps)
    return [x / root * w for x, w in zip(head, weight, strict=True)]


def _turn(head: Sequence[float], turns: Sequence[complex], interleaved: bool) -> list[float]:
    out = list(head)
    for i, turn in enumerate(turns):
        real, imaginary = (2 * i, 2 * i + 1) if interleaved else (i, i + len(turns))
        turned = complex(head[real], head[imaginary]) * turn
        out[real], out[imaginary] = turned.real, turned.imag
    return out


def _single(x: float) -> float:
    return ctypes.c_float(x).value
