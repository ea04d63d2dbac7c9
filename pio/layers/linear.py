"""A linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from pio import ops
from pio.layers.source import Source
from pio.tensor import Tensor


class Linear:
    """``x @ weight.T + bias``."""

    __slots__ = ("bias", "threads", "weight")

    def __init__(self, source: Source, out_features: int, in_features: int, *, bias: bool = False) -> None:
        self.weight = source.take("weight", out_features, in_features)  # (out, in)
        self.bias = source.take("bias", out_features) if bias else None  # (out,)
        self.threads = source.threads

    def __call__(self, x: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
        """Write the product to ``out``, or add it to what is there (a residual connection).

        Shapes: x float32 (T, in), out float32 (T, out).
        """
        return ops.linear(x, self.weight, self.bias, out=out, add=add, threads=self.threads)


def together(x: Tensor, layers: Sequence[Linear], outs: Sequence[Tensor]) -> None:
    """Compute several layers of one input at once.

    Shapes: x float32 (T, in), outs float32 (T, out) of each layer.
    """
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    ops.linears(x, weights, outs, biases, threads=layers[0].threads)
