"""Where a block gets its weights from: a place in the checkpoint's tree of names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from pio.dtypes import DType
from pio.tensor import Tensor


class Weights(Protocol):
    """Tensors of a checkpoint by name; each is checked and accounted for when taken."""

    def __contains__(self, name: object, /) -> bool:
        """Return whether the checkpoint has a tensor of that name."""
        ...

    def take(self, name: str, shape: tuple[int, ...], /) -> Tensor:
        """Return a tensor, or raise a CheckpointError if it is missing or has another shape."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A prefix of tensor names, and what every block below it shares.

    Attributes:
        weights: The checkpoint.
        prefix: Names so far, such as ``model.layers.3.self_attn``.
        threads: Over how many threads operations split.
        dtype: Convert weights to this type; None keeps what is stored.
    """

    weights: Weights
    prefix: str = ""
    threads: int = 1
    dtype: DType | None = None

    def __truediv__(self, name: str | int) -> Source:
        """Return the source one name further down."""
        return replace(self, prefix=f"{self.prefix}.{name}" if self.prefix else str(name))

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name below the prefix."""
        tensor = self.weights.take(f"{self.prefix}.{name}" if self.prefix else name, shape)
        return tensor if self.dtype is None else tensor.astype(self.dtype)
