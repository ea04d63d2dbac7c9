"""Where layers take their weights from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Protocol, TypeAlias

from pio.device import Device
from pio.dtypes import DType, float32
from pio.layers.placement import Placement
from pio.layers.quantization import Quantization, Role
from pio.layers.workspace import Workspace
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
class Inventory:
    """What a model holds.

    Attributes:
        nbytes: Bytes of weights by name: mapped from files, or converted.
        mapped: Whether files are mapped; else what is as stored is in memory too.
        made: How many of them are not mapped from files.
        formats: In what form there are matrices, by role.
        stored: The packed forms in which files have them, by role; ``""`` for floats.
        experts: Names of the weights of experts, of which a token meets only some.
    """

    nbytes: dict[str, int] = field(default_factory=dict[str, int])
    mapped: bool = True
    made: dict[str, int] = field(default_factory=dict[str, int])
    formats: dict[Role, set[str]] = field(default_factory=dict[Role, set[str]])
    stored: dict[Role, set[str]] = field(default_factory=dict[Role, set[str]])
    experts: set[str] = field(default_factory=set[str])

    def note(self, name: str, nbytes: int, stored: int = 0) -> None:
        """Note what becomes of a tensor, and how many bytes of that are as stored."""
        self.nbytes[name] = nbytes
        self.made[name] = nbytes - stored if self.mapped else nbytes

    @property
    def packed(self) -> bool:
        """Whether some matrices are quantized."""
        return any(form in FORMATS for forms in self.formats.values() for form in forms)

    @property
    def total(self) -> int:
        """Bytes of all weights."""
        return sum(self.nbytes.values())

    @property
    def expert_bytes(self) -> int:
        """Bytes of the weights of experts."""
        return sum(self.nbytes[name] for name in self.experts)


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
        workspace: What every block computes in.
        prefix: Names so far, such as ``model.layers.3.self_attn``.
        dtype: Convert weights to this type; None keeps what is stored.
        quantization: What becomes of matrices.
        inventory: What was taken.
        check: Called before each tensor is taken, which may take long; what it raises ends the building.
        placement: Where weights of layers lie.
        layer: The number of the layer whose weights are below the prefix; None where they are no layer's.
        of_experts: Whether they are those of experts, of which a token meets only some.
    """

    weights: Weights
    workspace: Workspace
    prefix: str = ""
    dtype: DType | None = None
    quantization: Quantization = field(default_factory=Quantization)
    inventory: Inventory = field(default_factory=Inventory)
    check: Callable[[], object] = lambda: None
    placement: Placement = field(default_factory=Placement)
    layer: int | None = None
    of_experts: bool = False

    @property
    def device(self) -> Device:
        """Where weights are put, for operations to run there."""
        return self.workspace.device

    @property
    def runs_on(self) -> Device:
        """Where steps run, on whose kind it depends how much scratch they need: there, but for a rehearsal."""
        return self.workspace.runs_on

    def __truediv__(self, name: str | int) -> Source:
        """Return the source one name further down."""
        return replace(self, prefix=self.full_name(str(name)))

    def of_layer(self, number: int) -> Source:
        """Return the source of a layer's weights, which are below that number."""
        return replace(self / number, layer=number)

    @property
    def experts(self) -> Source:
        """The source of experts' weights, which are below that name."""
        return replace(self / "experts", of_experts=True)

    def full_name(self, name: str) -> str:
        """Return a name with the prefix before it."""
        return f"{self.prefix}.{name}" if self.prefix else name

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name below the prefix."""
        self.check()
        full = self.full_name(name)
        tensor = self._placed(full, self.weights.take(full, shape))
        if self.dtype is not None and tensor.dtype is not self.dtype:
            self.inventory.note(full, prod(shape) * self.dtype.itemsize)
            tensor = self._converted(full, tensor, self.dtype)
        else:
            self.inventory.note(full, tensor.nbytes, stored=tensor.nbytes)
        return self._kept(full, tensor)

    def take_float32(self, name: str, *shape: int) -> Tensor:
        """Return the tensor of that name in float32, even where others are converted: a small one that decides much."""
        return replace(self, dtype=float32).take(name, *shape)

    def matrix(self, name: str, rows: int, columns: int, role: Role = "linear") -> Tensor | PackedWeight:
        """Return the matrix of that name below the prefix, packed where it is stored so or is to be so."""
        self.check()
        full, shape = self.full_name(name), (rows, columns)
        found: Tensor | PackedWeight | None = self.weights.take_packed(full, shape)
        self.inventory.stored.setdefault(role, set()).add(found.form.name if found else "")
        form = self.quantization.forms.get(role)
        if found is not None:
            self.inventory.note(full, found.nbytes, stored=found.nbytes)
            found = PackedWeight(self._placed(full, found.data), found.form.name, found.shape)
            found = self._kept_packed(full, found)
        elif form is not None:
            self.inventory.note(full, prod(packed_shape(shape, form)))
            found = self._kept_packed(full, self._packed(full, shape, form))
        else:
            found = self.take(name, rows, columns)
        self.workspace.expect(found)
        self.inventory.formats.setdefault(role, set()).add(_form(found))
        return found

    def remake(self, name: str, recipe: Recipe) -> list[Tensor]:
        """Return what a model makes of the tensor of that name and keeps in its place."""
        self.check()
        full = self.full_name(name)
        stored = self._placed(full, self.weights.take(full, recipe.shape))
        dtype = self.dtype or stored.dtype
        shared = bool(recipe.views) and dtype is stored.dtype
        nbytes = [dtype.itemsize * sum(map(prod, shapes)) for shapes in (recipe.new, recipe.views)]
        self.inventory.note(full, sum(nbytes), stored=nbytes[1] if shared else 0)
        parts = [self._kept(full, part) for part in self._made(stored, recipe, dtype)]
        if not shared:
            self.weights.let_go(full)
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
        """
        full = self.full_name(name)
        if isinstance(like, Tensor):
            parts = self.remake(name, recipe)
            self.inventory.formats.setdefault("linear", set()).update(map(_form, parts))
            return [*parts]
        self.check()
        form, stored = like.form.name, self._placed(full, self.weights.take(full, recipe.shape))
        self.inventory.note(full, sum(prod(packed_shape(packed_heads_shape(part), form)) for part in recipe.parts))
        packed = [self._kept_packed(full, part) for part in self._packed_heads(full, stored, recipe, form)]
        self.weights.let_go(full)
        for heads, weight in zip(recipe.parts, packed, strict=True):
            self.workspace.expect(weight, heads[0])
        return [*packed]

    def _kept(self, full: str, made: Tensor) -> Tensor:
        """A weight where operations will find it; a copy leaves the file's pages to others."""
        found = self.placement.keep(self, made)
        if found is not made:
            self.weights.let_go(full)
        return found

    def _kept_packed(self, full: str, made: PackedWeight) -> PackedWeight:
        data = self._kept(full, made.data)
        return made if data is made.data else PackedWeight(data, made.form.name, made.shape)

    # How weights become what is held; a rehearsal makes nothing

    def _placed(self, full: str, stored: Tensor) -> Tensor:
        """A tensor where weights are made; a GPU's copy leaves the file's pages to others."""
        there = self.placement.made_on(self)
        found = stored.to(there)
        if there.stream is not None:
            self.weights.let_go(full)
        return found

    def _converted(self, full: str, tensor: Tensor, dtype: DType) -> Tensor:
        what = f"the weights as {dtype} (none with dtype=None)"
        storage = Storage.allocate(tensor.size * dtype.itemsize, what=what, device=tensor.device)
        made = Tensor(storage, storage.address, dtype, tensor.shape, row_major(tensor.shape)).copy_(tensor)
        self.weights.let_go(full)
        return made

    def _packed(self, full: str, shape: tuple[int, int], form: str) -> PackedWeight:
        there = self.placement.made_on(self)

        def pack(stored: Tensor) -> PackedWeight:
            return self.quantization.pack(full, stored.to(there), form)

        return self.weights.convert(full, shape, pack).to(there)

    def _made(self, stored: Tensor, recipe: Recipe, dtype: DType) -> list[Tensor]:
        return [part.astype(dtype) for part in recipe.make(stored)]

    def _packed_heads(self, full: str, stored: Tensor, recipe: Recipe, form: str) -> list[PackedWeight]:
        return [self.quantization.pack_heads(full, part, form) for part in recipe.make(stored)]


def _form(weight: Tensor | PackedWeight) -> str:
    return weight.form.name if isinstance(weight, PackedWeight) else weight.dtype.name
