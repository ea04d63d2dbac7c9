"""Attention of eight bits in which every query sees everything, in float64 otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from pio.testing.reference.quantized_attention import Output, Rounded, quantized_attention


def full_attention(
    q: list[list[list[float]]],
    k: Sequence[Sequence[Sequence[Rounded]]],
    v: Sequence[Sequence[Rounded]],
    *,
    scale: float | None = None,
    precision: float = 0.0,
) -> list[list[Output]]:
    """Attend for the last tokens of one sequence to all of it; probabilities share their largest by 128 positions.

    Shapes: as in ``quantized_attention``.
    """
    return quantized_attention(q, k, v, causal=False, scale=scale, precision=precision)
