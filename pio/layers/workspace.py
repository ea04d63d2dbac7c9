"""Workspace: the memory that a model's blocks compute in, made once for the largest step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Generic, TypeVar, cast

from pio.device import Device, on_device
from pio.dtypes import DType, bfloat16, float32, uint8
from pio.errors import TensorError
from pio.memory import step
from pio.memory.allocation import ALIGNMENT
from pio.memory.budget import MemoryBudget
from pio.memory.layout import Shape, row_major
from pio.memory.storage import Storage
from pio.ops.bfloat16 import rounded_bytes
from pio.ops.quantized import PackedWeight, record_bytes
from pio.tensor import Tensor

T = TypeVar("T")
ACTIVATIONS: Final = "the activations (fewer with prefill_chunk or max_batch_sequences)"
# Numbers of tokens whose views are kept. A step has two, of its tokens and of its outputs, and needs them only while it
# is recorded.
KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one tensor of a block lies: at the start of memory that has room for the largest of its name."""

    key: tuple[str, str]
    shape: Shape
    dtype: DType
    per_token: bool

    def bytes_for(self, tokens: int) -> int:
        return (tokens if self.per_token else 1) * prod(self.shape) * self.dtype.itemsize

    def shape_for(self, tokens: int) -> Shape:
        return (tokens, *self.shape) if self.per_token else self.shape


class Rooms(Generic[T]):
    """What a block computes in: views for a number of tokens, made when they are asked for.

    Those of the last few numbers are kept: layers of one step share theirs, and steps of ever other sizes leave
    nothing behind.
    """

    __slots__ = ("_kept", "_places", "_view", "_workspace")

    def __init__(self, workspace: Workspace, places: dict[str, _Place], view: Callable[[dict[str, Tensor]], T]) -> None:
        self._workspace = workspace
        self._places = places
        self._view = view
        self._kept: dict[int, T] = {}

    def __call__(self, tokens: int) -> T:
        """Return the views for that many tokens."""
        found = self._kept.pop(tokens, None)
        if found is None:
            found = self._view({name: self._workspace.tensor(place, tokens) for name, place in self._places.items()})
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
        self._kept[tokens] = found  # the last used is the last to go
        return found


class Workspace:
    """One allocation, which all layers share, for the largest step of a model.

    While a model is built its blocks ask for rooms. Rooms of one name are the same memory, as large as the largest of
    them, so what a block has there is gone when the next one of that name runs. The memory is made when it is first
    used, and from then on nothing more can be asked for.

    Attributes:
        tokens: Most tokens of a step.
        device: Where it lies.
        runs_on: Where steps run: there, or where those of the model that is only rehearsed here would.
        rounds_inputs: Whether inputs are rounded to bfloat16 where weights are bfloat16.
    """

    def __init__(
        self,
        tokens: int,
        budget: MemoryBudget | None = None,
        *,
        device: Device | None = None,
        round_inputs: bool = False,
        runs_on: Device | None = None,
    ) -> None:
        """Begin without any room.

        Args:
            tokens: Most tokens of a step.
            budget: Counts the memory.
            device: Where it lies; the default one if None.
            round_inputs: Whether inputs of layers with bfloat16 weights are rounded to bfloat16.
            runs_on: Whose steps it is counted for, where it is never made; that device if None.
        """
        self.tokens = tokens
        self.device = on_device(device)
        self.runs_on = self.device if runs_on is None else runs_on
        self.rounds_inputs = round_inputs
        self._budget = budget
        self._sizes: dict[tuple[str, str], int] = {}
        self._asked: dict[Any, Rooms[Any]] = {}
        self._begin: list[tuple[dict[str, _Place], Callable[[dict[str, Tensor]], None]]] = []
        self._input_bytes = 0
        self._inputs: Tensor | None = None
        self._storage: Storage | None = None
        self._addresses: dict[tuple[str, str], int] = {}

    def rooms(
        self,
        name: str,
        shapes: Mapping[str, Shape],
        view: Callable[[dict[str, Tensor]], T],
        *,
        fixed: Mapping[str, Shape] | None = None,
        kinds: Mapping[str, DType] | None = None,
        begin: Callable[[dict[str, Tensor]], None] | None = None,
    ) -> Rooms[T]:
        """Ask for tensors; blocks that ask for the same, with the same functions, get the same views.

        Args:
            name: Whose they are; those of one name share memory.
            shapes: Of one token, by name: for T tokens there will be a tensor (T, *shape).
            view: Makes of the tensors what the block works with.
            fixed: Shapes of tensors that are the same for any number of tokens.
            kinds: Element types of those that are not float32.
            begin: Fills the tensors of the largest step when they are made, where some hold constants.

        Raises:
            TensorError: The memory is made already.
        """
        if self._storage is not None:
            raise TensorError(f"rooms for {name} asked for behind the first step; ask for them when a block is built")
        kinds = kinds or {}
        places = {
            item: _Place((name, item), shape, kinds.get(item, float32), per_token)
            for group, per_token in ((shapes, True), (fixed or {}, False))
            for item, shape in group.items()
        }
        key = (tuple(places.values()), view, begin)
        found = self._asked.get(key)
        if found is None:
            found = self._asked[key] = Rooms(self, places, view)
            for place in places.values():
                self._sizes[place.key] = max(self._sizes.get(place.key, 0), place.bytes_for(self.tokens))
            if begin is not None:
                self._begin.append((places, begin))
        return cast("Rooms[T]", found)

    def rounds(self, weight: Tensor | PackedWeight) -> bool:
        """Return whether inputs are rounded before they are multiplied by this matrix."""
        return self.rounds_inputs and isinstance(weight, Tensor) and weight.dtype is bfloat16

    def expect(self, weight: Tensor | PackedWeight, heads: int = 1) -> None:
        """Note that there is a layer with this matrix, whose inputs may have to be quantized or rounded.

        Args:
            weight: The matrix, or those of all heads side by side.
            heads: How many rows of inputs a token has.
        """
        columns = weight.shape[-1]
        if isinstance(weight, PackedWeight):
            self._input_bytes = max(self._input_bytes, heads * record_bytes(columns))
        elif self.rounds(weight):
            self._input_bytes = max(self._input_bytes, rounded_bytes(columns))

    @property
    def inputs(self) -> Tensor:
        """Scratch for quantized or rounded inputs, those of one step for the widest layer; uint8."""
        if self._inputs is None:
            nbytes = self.tokens * self._input_bytes
            self._inputs = Tensor(self.storage, self.storage.address, uint8, (nbytes,), (1,))
        return self._inputs

    @property
    def nbytes(self) -> int:
        """Bytes that are or will be taken."""
        return sum(map(_whole_lines, (self.tokens * self._input_bytes, *self._sizes.values())))

    @property
    def storage(self) -> Storage:
        """The memory, made when it is first asked for.

        Raises:
            OutOfMemoryError: The budget or the machine cannot give that much.
        """
        if self._storage is None:
            with step.paused():  # no memory of a step's: it is kept here
                self._make()
        return cast("Storage", self._storage)

    def free(self) -> None:
        """Give the memory back, if it was made; neither the blocks nor steps recorded with them can run any more."""
        if self._storage is not None:
            self._storage.free()

    def tensor(self, place: _Place, tokens: int) -> Tensor:
        """Return a tensor for that many tokens."""
        storage, shape = self.storage, place.shape_for(tokens)
        return Tensor(storage, self._addresses[place.key], place.dtype, shape, row_major(shape))

    def _make(self) -> None:
        self._storage = Storage.allocate(self.nbytes, budget=self._budget, what=ACTIVATIONS, device=self.device)
        at = self._storage.address + _whole_lines(self.tokens * self._input_bytes)
        for key, size in self._sizes.items():
            self._addresses[key] = at
            at += _whole_lines(size)
        try:
            for places, begin in self._begin:
                begin({name: self.tensor(place, self.tokens) for name, place in places.items()})
        except BaseException:
            self._storage = None  # whoever asks next begins anew
            raise
        self._begin.clear()
        self._asked.clear()  # they hold this object: memory goes with its model, and waits for no collector


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
