"""Where layers take their weights from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Protocol, TypeAlias

from pio.device import MemoryBudget
from pio.dtypes import DType, float32
from pio.layers.quantization import Quantization, Records, Role
from pio.memory.layout import row_major
from pio.memory.storage import Storage
from pio.ops.head_linear import packed_heads_shape
from pio.ops.quantized import FORMATS, PackedWeight, packed_shape
from pio.tensor import Tensor

Shape: TypeAlias = tuple[int, ...]
Make: TypeAlias = Callable[[Tensor], Sequence[Tensor]]


class Weights(Protocol):
    """The tensors of a checkpoint."""

    def __contains__(self, name: object, /) -> bool:
        """Return whether the checkpoint has a tensor of that name."""
        ...

    def take(self, name: str, shape: tuple[int, ...], /) -> Tensor:
        """Return a tensor, or raise a CheckpointError if it is missing or has another shape."""
        ...

    def take_packed(self, name: str, shape: tuple[int, int], /) -> PackedWeight | None:
        """Return a matrix that is stored packed; None where it is not."""
        ...

    def convert(self, name: str, shape: tuple[int, int], pack: Callable[[Tensor], PackedWeight], /) -> PackedWeight:
        """Return what ``pack`` makes of a matrix, and let go of the matrix."""
        ...

    def same(self, one: str, other: str, /) -> bool:
        """Return whether two tensors are stored alike, to the bit; the first is skipped then."""
        ...

    def let_go(self, name: str, /) -> None:
        """Give back the memory of a mapped tensor that was converted; it can still be read."""
        ...

    def ignore(self, which: Callable[[str], bool], why: str, /) -> None:
        """Skip tensors knowingly; ``why`` says in a few words what they are."""
        ...


@dataclass(slots=True)
class Held:
    """What a model holds.

    Attributes:
        nbytes: Bytes of weights by name: mapped from files, or converted.
        formats: In what form there are matrices, by role.
        stored: The packed forms in which files have them, by role; ``""`` for floats.
    """

    nbytes: dict[str, int] = field(default_factory=dict[str, int])
    formats: dict[Role, set[str]] = field(default_factory=dict[Role, set[str]])
    stored: dict[Role, set[str]] = field(default_factory=dict[Role, set[str]])

    @property
    def packed(self) -> bool:
        """Whether some matrices are quantized."""
        return any(form in FORMATS for forms in self.formats.values() for form in forms)

    @property
    def total(self) -> int:
        """Bytes of all weights."""
        return sum(self.nbytes.values())


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model makes what it keeps in the place of a tensor.

    Attributes:
        shape: Of the tensor.
        make: Makes the parts of it, first new ones, then views of it.
        new: Shapes of the new parts.
        views: Shapes of the views, which take no memory of their own.
    """

    shape: Shape
    make: Make
    new: Sequence[Shape]
    views: Sequence[Shape] = ()

    @property
    def parts(self) -> tuple[Shape, ...]:
        """Shapes of all parts."""
        return *self.new, *self.views


@dataclass(frozen=True, slots=True)
class Source:
    """A prefix of tensor names, and what every block below it shares.

    Attributes:
        weights: The checkpoint.
        records: Memory for quantized or rounded activations.
        prefix: Names so far, such as ``model.layers.3.self_attn``.
        threads: Over how many threads operations split.
        dtype: Convert weights to this type; None keeps what is stored.
        budget: Counts the memory of converted weights.
        quantization: What becomes of matrices.
        held: What was taken.
    """

    weights: Weights
    records: Records
    prefix: str = ""
    threads: int = 1
    dtype: DType | None = None
    budget: MemoryBudget | None = None
    quantization: Quantization = field(default_factory=Quantization)
    held: Held = field(default_factory=Held)

    def __truediv__(self, name: str | int) -> Source:
        """Return the source one name further down."""
        return replace(self, prefix=self.full_name(str(name)))

    def full_name(self, name: str) -> str:
        """Return a name with the prefix before it."""
        return f"{self.prefix}.{name}" if self.prefix else name

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name below the prefix."""
        full = self.full_name(name)
        tensor = self.weights.take(full, shape)
        if self.dtype is not None and tensor.dtype is not self.dtype:
            nbytes = tensor.size * self.dtype.itemsize
            what = f"the weights as {self.dtype} (none with dtype=None)"
            storage = Storage.allocate(nbytes, budget=self.budget, what=what)
            tensor = Tensor(storage, storage.address, self.dtype, tensor.shape, row_major(tensor.shape)).copy_(tensor)
            self.weights.let_go(full)
        self.held.nbytes[full] = tensor.nbytes
        return tensor

    def exact(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name in float32, even where others are converted: a small one that decides much."""
        widened = replace(self, dtype=None if self.dtype is None else float32)
        return widened.take(name, *shape).astype(float32)

    def matrix(self, name: str, rows: int, columns: int, role: Role = "linear") -> Tensor | PackedWeight:
        """Return the matrix of that name below the prefix, packed where it is stored so or is to be so."""
        full = self.full_name(name)
        packed = self.weights.take_packed(full, (rows, columns))
        self.held.stored.setdefault(role, set()).add(packed.form.name if packed else "")
        form = self.quantization.forms.get(role)
        if packed is None and form is not None:
            pack = partial(self.quantization.pack, full, form=form, threads=self.threads)
            packed = self.weights.convert(full, (rows, columns), pack)
        if packed is None:
            matrix = self.take(name, rows, columns)
            self.held.formats.setdefault(role, set()).add(matrix.dtype.name)
            self.records.expect(matrix)
            return matrix
        self.records.expect(packed)
        self.held.formats.setdefault(role, set()).add(packed.form.name)
        self.held.nbytes[full] = packed.nbytes
        return packed

    def remake(self, name: str, recipe: Recipe) -> list[Tensor]:
        """Return what a model makes of the tensor of that name and keeps in its place; counted before it is made.

        Raises:
            OutOfMemoryError: It does not fit into the budget.
        """
        full = self.full_name(name)
        stored = self.weights.take(full, recipe.shape)
        dtype = self.dtype or stored.dtype
        shared = bool(recipe.views) and dtype is stored.dtype
        self._reserve(full, dtype.itemsize * sum(map(prod, recipe.new if shared else recipe.parts)))
        parts = [part if part.dtype is dtype else part.astype(dtype) for part in recipe.make(stored)]
        if not shared:
            self.weights.let_go(full)
        self.held.nbytes[full] = sum(part.nbytes for part in parts)
        return parts

    def remake_heads(self, name: str, recipe: Recipe, like: Tensor | PackedWeight) -> list[Tensor | PackedWeight]:
        """Return matrices (heads, n, k) that a model makes of a tensor, packed where ``like`` is.

        Files keep the tensor as floats even where other matrices are packed: groups of what is made do not lie along
        the rows of what is stored, and packing these would round once more.

        Args:
            name: Of the tensor, below the prefix.
            recipe: Makes them; views are copied where they are packed.
            like: A matrix of the same block, whose form they get.

        Raises:
            CheckpointError: A matrix cannot be packed, for it holds what is no number, or too large a one.
            OutOfMemoryError: What is made does not fit into the budget.
        """
        full = self.full_name(name)
        if isinstance(like, Tensor):
            parts = self.remake(name, recipe)
            self.held.formats.setdefault("linear", set()).update(part.dtype.name for part in parts)
            return [*parts]
        form, stored = like.form.name, self.weights.take(full, recipe.shape)
        self._reserve(full, sum(prod(packed_shape(packed_heads_shape(part), form)) for part in recipe.parts))
        packed = [self.quantization.pack_heads(full, part, form, self.threads) for part in recipe.make(stored)]
        self.weights.let_go(full)
        for heads, weight in zip(recipe.parts, packed, strict=True):
            self.records.expect_heads(heads[0], weight)
        self.held.nbytes[full] = sum(weight.nbytes for weight in packed)
        return [*packed]

    def _reserve(self, full: str, nbytes: int) -> None:
        if self.budget is not None:
            self.budget.reserve(nbytes, f"what is made of {full}")
