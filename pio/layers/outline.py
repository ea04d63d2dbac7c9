"""What a model takes from a checkpoint, found out by building it on nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from pio.dtypes import float32
from pio.layers.quantization import Role
from pio.layers.source import Recipe, Shape, Source
from pio.memory.storage import Storage
from pio.ops.head_linear import packed_heads_shape
from pio.ops.quantized import PackedWeight, packed_shape
from pio.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Remade:
    """What a model makes of a tensor and keeps in its place.

    Attributes:
        shapes: Of the parts that are made.
        itemsize: Bytes of an element as stored.
        heads: Whether the parts are matrices of heads, which are packed where layers are.
    """

    shapes: tuple[Shape, ...]
    itemsize: int
    heads: bool

    def nbytes(self, form: str | None) -> int:
        """Return the bytes of all parts; ``form`` is that of layers, None for floats."""
        if self.heads and form is not None:
            return sum(prod(packed_shape(packed_heads_shape(shape), form)) for shape in self.shapes)
        return self.itemsize * sum(map(prod, self.shapes))


@dataclass(frozen=True, slots=True)
class Outline(Source):
    """A source that notes matrices and gives blank ones, which take no memory; all else comes from the checkpoint.

    Attributes:
        matrices: Shape and role of each matrix by name, in the order in which the model takes them.
        others: Bytes of the other tensors by name, as stored.
        remade: Those among the others of which the model makes something else.
    """

    matrices: dict[str, tuple[tuple[int, int], Role]] = field(default_factory=dict[str, tuple[tuple[int, int], Role]])
    others: dict[str, int] = field(default_factory=dict[str, int])
    remade: dict[str, Remade] = field(default_factory=dict[str, Remade])

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name below the prefix, as stored."""
        full = self.full_name(name)
        tensor = self.weights.take(full, shape)
        self.others[full] = tensor.nbytes
        return tensor

    def matrix(self, name: str, rows: int, columns: int, role: Role = "linear") -> Tensor:
        """Return a matrix of that shape which is one zero everywhere."""
        self.matrices[self.full_name(name)] = (rows, columns), role
        return _blank((rows, columns))

    def remake(self, name: str, recipe: Recipe) -> list[Tensor]:
        """Note what is made of a tensor, and return tensors of those shapes which are one zero everywhere."""
        return self._noted(name, recipe, heads=False)

    def remake_heads(self, name: str, recipe: Recipe, like: Tensor | PackedWeight) -> list[Tensor | PackedWeight]:
        """Note what is made of a tensor, and return tensors of those shapes which are one zero everywhere."""
        return [*self._noted(name, recipe, heads=True)]

    def new_bytes(self, forms: Mapping[Role, str]) -> int:
        """Return the bytes of what a model packs and makes; each role has a format, or is mapped as stored."""
        packed = [packed_shape(shape, forms[role]) for shape, role in self.matrices.values() if role in forms]
        return sum(map(prod, packed)) + self.remade_bytes(forms)

    def remade_bytes(self, forms: Mapping[Role, str]) -> int:
        """Return the bytes of what a model makes of tensors; formats as in ``new_bytes``."""
        return sum(remade.nbytes(forms.get("linear")) for remade in self.remade.values())

    @property
    def kept_bytes(self) -> int:
        """Bytes of the tensors that are neither matrices nor remade, as stored."""
        return sum(nbytes for name, nbytes in self.others.items() if name not in self.remade)

    def _noted(self, name: str, recipe: Recipe, *, heads: bool) -> list[Tensor]:
        stored = self.take(name, *recipe.shape)
        self.remade[self.full_name(name)] = Remade(recipe.parts, stored.dtype.itemsize, heads)
        return list(map(_blank, recipe.parts))


def _blank(shape: Shape) -> Tensor:
    storage = Storage.allocate(float32.itemsize)
    return Tensor(storage, storage.address, float32, shape, (0,) * len(shape))
