"""Log probabilities written naively, in float64: what the kernels are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence


def log_softmax(logits: Sequence[float]) -> list[float]:
    """Return natural log probabilities."""
    largest = max(logits)
    log_total = largest + math.log(math.fsum(math.exp(x - largest) for x in logits))
    return [x - log_total for x in logits]
