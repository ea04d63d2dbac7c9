"""What a model takes from a checkpoint, found out by building it on nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from pio.dtypes import float32
from pio.layers.quantization import Role
from pio.layers.source import Source
from pio.memory.storage import Storage
from pio.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Outline(Source):
    """A source that notes matrices and gives blank ones, which take no memory; all else comes from the checkpoint.

    Attributes:
        matrices: Shape and role of each matrix by name, in the order in which the model takes them.
        others: Bytes of the other tensors by name, as stored.
    """

    matrices: dict[str, tuple[tuple[int, int], Role]] = field(default_factory=dict[str, tuple[tuple[int, int], Role]])
    others: dict[str, int] = field(default_factory=dict[str, int])

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name below the prefix, as stored."""
        full = self.full_name(name)
        tensor = self.weights.take(full, shape)
        self.others[full] = tensor.nbytes
        return tensor

    def matrix(self, name: str, rows: int, columns: int, role: Role = "linear") -> Tensor:
        """Return a matrix of that shape which is one zero everywhere."""
        self.matrices[self.full_name(name)] = (rows, columns), role
        storage = Storage.allocate(float32.itemsize)
        return Tensor(storage, storage.address, float32, (rows, columns), (0, 0))
