"""The largest elements of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence


def top_k(values: Sequence[float], k: int) -> list[tuple[float, int]]:
    """Return the k largest values with their indices, best first, equals by index; NaN ranks as -inf."""
    ranked = [(-math.inf if math.isnan(v) else v, i) for i, v in enumerate(values)]
    return sorted(ranked, key=lambda e: (-e[0], e[1]))[:k]
