"""A linear layer, of weights as stored or quantized."""

from __future__ import annotations

from collections.abc import Sequence

from pio import ops
from pio.layers.quantization import Role
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.ops.quantized import PackedWeight
from pio.tensor import Tensor


class Linear:
    """``x @ weight.T + bias``.

    Attributes:
        weight: (out, in); floats as stored, or packed.
        bias: (out,) or None; float32 beside a packed weight.
        workspace: Where its quantized or rounded inputs are put.
    """

    __slots__ = ("bias", "weight", "workspace")

    weight: Tensor | PackedWeight

    def __init__(
        self, source: Source, out_features: int, in_features: int, *, bias: bool = False, role: Role | None = "linear"
    ) -> None:
        """Take the weights; ``role`` says whether the matrix is quantized with others, None that it stays as stored."""
        if role is None:
            self.weight = source.take("weight", out_features, in_features)
            source.workspace.expect(self.weight)
        else:
            self.weight = source.matrix("weight", out_features, in_features, role)  # (out, in)
        take = source.take_float32 if isinstance(self.weight, PackedWeight) else source.take
        self.bias = take("bias", out_features) if bias else None  # (out,)
        self.workspace = source.workspace

    def split(self, *sizes: int) -> list[Linear]:
        """Return layers that each give a part of the outputs, in their order; they share the weights.

        Raises:
            TensorError: The weight is packed, and a part does not begin where a block of 16 outputs begins.
        """
        parts: list[Linear] = []
        first = 0
        for size in sizes:
            part, last = object.__new__(Linear), first + size
            found = self.weight
            part.weight = found.rows(first, last) if isinstance(found, PackedWeight) else found[first:last]
            part.bias = None if self.bias is None else self.bias[first:last]
            part.workspace = self.workspace
            parts.append(part)
            first = last
        return parts

    def __call__(self, x: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
        """Write the product to ``out``, or add it to what is there (a residual connection).

        Shapes: x float32 (T, in), out float32 (T, out).
        """
        return project(x, self.weight, self.bias, out, self.workspace, add=add)


def project(
    x: Tensor,
    weight: Tensor | PackedWeight,
    bias: Tensor | None,
    out: Tensor,
    workspace: Workspace,
    *,
    add: bool = False,
) -> Tensor:
    """Multiply rows by a weight of either kind.

    Shapes: x float32 (T, in), weight (out, in), bias (out,), out float32 (T, out).
    """
    if isinstance(weight, PackedWeight):
        return ops.quantized_linear(x, weight, bias, out=out, add=add, scratch=workspace.inputs)
    if workspace.rounds(weight):
        return ops.bfloat16_linear(x, weight, bias, out=out, add=add, scratch=workspace.inputs)
    return ops.linear(x, weight, bias, out=out, add=add)


def together(x: Tensor, layers: Sequence[Linear], outs: Sequence[Tensor]) -> None:
    """Compute several layers of one input at once.

    Shapes: x float32 (T, in), outs float32 (T, out) of each layer.
    """
    workspace, biases = layers[0].workspace, [layer.bias for layer in layers]
    packed = [layer.weight for layer in layers if isinstance(layer.weight, PackedWeight)]
    plain = [layer.weight for layer in layers if isinstance(layer.weight, Tensor)]
    if len(packed) == len(layers):
        ops.quantized_linears(x, packed, outs, biases, scratch=workspace.inputs)
    elif len(plain) == len(layers) and all(map(workspace.rounds, plain)):
        ops.bfloat16_linears(x, plain, outs, biases, scratch=workspace.inputs)
    elif len(plain) == len(layers) and not any(map(workspace.rounds, plain)):
        ops.linears(x, plain, outs, biases)
    else:
        for layer, out in zip(layers, outs, strict=True):
            layer(x, out)
