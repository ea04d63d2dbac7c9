"""Searches through whole tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence


def first_non_finite(x: Sequence[float]) -> int | None:
    """Return the position of the first NaN or infinity."""
    return next((i for i, v in enumerate(x) if not math.isfinite(v)), None)
