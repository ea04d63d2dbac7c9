"""What a model takes from a checkpoint, found out by building it on nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from pio.layers.quantization import Role
from pio.layers.rehearsal import blank
from pio.layers.source import Recipe, Source
from pio.ops.quantized import PackedWeight
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
        return blank((rows, columns))

    def remake(self, name: str, recipe: Recipe) -> list[Tensor]:
        """Return tensors of the shapes of what a model makes of a tensor, which are one zero everywhere."""
        self.take(name, *recipe.shape)
        return list(map(blank, recipe.parts))

    def remake_heads(self, name: str, recipe: Recipe, like: Tensor | PackedWeight) -> list[Tensor | PackedWeight]:
        """Return tensors of the shapes of what a model makes of a tensor, which are one zero everywhere."""
        return [*self.remake(name, recipe)]
