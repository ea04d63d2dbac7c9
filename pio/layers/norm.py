"""Norms: by the root mean square, and by mean and deviation."""

from __future__ import annotations

from pio import ops
from pio.layers.source import Source
from pio.tensor import Tensor


class RMSNorm:
    """``x / rms(x) * weight`` over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467).

    Some models store how far the weight is from one: they are zero-centred.
    """

    __slots__ = ("eps", "weight", "zero_centred")

    def __init__(self, source: Source, width: int, eps: float, *, zero_centred: bool = False) -> None:
        self.weight = source.take("weight", width)  # (width,)
        self.zero_centred = zero_centred
        self.eps = eps

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Normalise the rows of x.

        Shapes: x, out float32 (..., width); out may be x.
        """
        return ops.rms_norm(x, self.weight, self.eps, out=out, zero_centred=self.zero_centred)


class LayerNorm:
    """``(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` over the last axis (Ba et al. 2016, arXiv:1607.06450)."""

    __slots__ = ("bias", "eps", "weight")

    def __init__(self, source: Source, width: int, eps: float) -> None:
        self.weight = source.take("weight", width)  # (width,)
        self.bias = source.take("bias", width)  # (width,)
        self.eps = eps

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Normalise the rows of x.

        Shapes: x, out float32 (..., width); out may be x.
        """
        return ops.layer_norm(x, self.weight, self.bias, self.eps, out=out)
