"""Where a block gets its weights from: a place in the checkpoint's tree of names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from pio.device import MemoryBudget
from pio.dtypes import DType
from pio.memory.storage import Storage
from pio.tensor import Tensor, row_major


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
        budget: Counts the memory of converted weights.
    """

    weights: Weights
    prefix: str = ""
    threads: int = 1
    dtype: DType | None = None
    budget: MemoryBudget | None = None

    def __truediv__(self, name: str | int) -> Source:
        """Return the source one name further down."""
        return replace(self, prefix=f"{self.prefix}.{name}" if self.prefix else str(name))

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name below the prefix."""
        tensor = self.weights.take(f"{self.prefix}.{name}" if self.prefix else name, shape)
        if self.dtype is None or tensor.dtype is self.dtype:
            return tensor
        nbytes = tensor.size * self.dtype.itemsize
        what = f"the weights as {self.dtype} (none with dtype=None)"
        storage = Storage.allocate(nbytes, budget=self.budget, what=what)
        return Tensor(storage, storage.address, self.dtype, tensor.shape, row_major(tensor.shape)).copy_(tensor)
