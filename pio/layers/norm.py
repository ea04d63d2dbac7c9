"""Root mean square norm."""

from __future__ import annotations

from pio import ops
from pio.layers.source import Source
from pio.tensor import Tensor


class RMSNorm:
    """``x / rms(x) * weight`` over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    __slots__ = ("eps", "threads", "weight")

    def __init__(self, source: Source, width: int, eps: float) -> None:
        self.weight = source.take("weight", width)  # (width,)
        self.eps = eps
        self.threads = source.threads

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Normalise the rows of x.

        Shapes: x, out float32 (..., width); out may be x.
        """
        return ops.rms_norm(x, self.weight, self.eps, out=out, threads=self.threads)
