"""Comparisons of results with references."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from pio.tensor import Tensor


def bits(x: Tensor) -> bytes:
    """Return the bytes of a tensor in row-major order: equal where every bit is."""
    return x.to("cpu").contiguous().memoryview().tobytes()


def assert_close(found: Tensor | Any, expected: Any, *, relative: float = 0.0, absolute: Any = 0.0) -> None:
    """Raise an AssertionError unless every number is near the expected one; NaN equals NaN, infinities themselves.

    Args:
        found: A tensor, or numbers in nested lists.
        expected: Numbers in nested lists of the same shape.
        relative: Allowed distance as a share of the expected number.
        absolute: Allowed distance besides, one number or nested lists of the same shape.
    """
    numbers = found.tolist() if isinstance(found, Tensor) else found
    worst, message, count = 0.0, "", 0
    for place, a, b, slack in _pairs(numbers, expected, absolute, ()):
        allowed = slack + relative * abs(b) if math.isfinite(b) else 0.0
        distance = 0.0 if a == b or (math.isnan(a) and math.isnan(b)) else abs(a - b)
        if math.isnan(distance) or distance > allowed:
            count += 1
            excess = math.inf if math.isnan(distance) or not allowed else distance / allowed
            if not message or excess > worst:
                worst, message = excess, f"{a!r} at {list(place)}, expected {b!r} within {allowed:.3g}"
    if count:
        raise AssertionError(f"{count} numbers differ; the worst is {message}")


def _pairs(a: Any, b: Any, slack: Any, place: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], float, float, float]]:
    if not isinstance(b, Sequence):
        if isinstance(a, Sequence):
            raise AssertionError(f"found a list at {list(place)}, expected a number")
        yield place, a, b, slack
        return
    if not isinstance(a, Sequence) or len(a) != len(b):  # type: ignore[arg-type]
        raise AssertionError(f"found {a!r} at {list(place)}, expected {len(b)} entries")  # type: ignore[arg-type]
    for i, (left, right) in enumerate(zip(a, b, strict=True)):  # type: ignore[arg-type]
        yield from _pairs(left, right, slack[i] if isinstance(slack, Sequence) else slack, (*place, i))
