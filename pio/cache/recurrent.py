"""States of recurrent layers: of a fixed size, whatever the length of the sequence."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from pio.cache.snapshot import Shape, Snapshot
from pio.cache.windows import Windows
from pio.device import Device
from pio.dtypes import float32
from pio.errors import CapacityError, ConfigError, PioError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.ops.slices import Tentative
from pio.tensor import Tensor, row_major


class RecurrentStates:
    """Two float32 states for each layer and slot: what a convolution still needs, and the recurrence's own.

    A sequence has one slot in all layers while it runs. Its first token finds a state of zeros whatever the slot
    holds, so that a slot needs no clearing.

    Attributes:
        slots: Sequences that run at once.
        nbytes: Bytes of the states.
        tentative_tokens: How many tokens of a step may leave the states as they are, until ``commit`` says which of
            them stand; none where the layers do not know that.
        window_bytes: Bytes of what is kept of these.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        shapes: tuple[Shape, Shape],
        *,
        budget: MemoryBudget | None = None,
        device: Device | None = None,
        tentative_tokens: int = 0,
        key_heads: int = 0,
    ) -> None:
        """Reserve states; the system gives the memory as they are first written.

        Args:
            layers: Layers that recur.
            slots: Sequences that run at once.
            shapes: Of a layer's two states for one sequence.
            budget: Counts the memory and refuses what exceeds its limit.
            device: Where it lies.
            tentative_tokens: How many tokens of a step may be tentative: of a model all of whose recurrent layers are
                made of ``ops.causal_conv`` and ``ops.gated_delta``, and give both the window that ``layer`` returns.
            key_heads: Of such a layer.

        Raises:
            OutOfMemoryError: The budget or the machine cannot give that much.
        """
        self.slots = slots
        self._shapes = shapes
        sizes = [-(-4 * slots * prod(shape) // 64) * 64 for shape in shapes]
        self.nbytes = layers * sum(sizes)
        what = f"the states of {slots} sequences (fewer with max_batch_sequences, and kept ones with prefix_cache)"
        self._storage = storage = Storage.allocate(self.nbytes, budget=budget, what=what, device=device)
        self._layers: list[tuple[Tensor, Tensor]] | None = []
        at = storage.address
        for _ in range(layers):
            made: list[Tensor] = []
            for shape, size in zip(shapes, sizes, strict=True):
                full = (slots, *shape)
                made.append(Tensor(storage, at, float32, full, row_major(full)))
                at += size
            self._layers.append((made[0], made[1]))
        self._apart = sum(sizes) // 4  # elements from layer to layer
        self.tentative_tokens = tentative_tokens if layers else 0
        self._windows: Windows | None = None
        if self.tentative_tokens:
            self._windows = Windows(layers, tentative_tokens, shapes, key_heads, budget=budget, device=device)
        self.window_bytes = self._windows.nbytes if self._windows else 0

    @staticmethod
    def bytes_of(layers: int, shapes: tuple[Shape, Shape]) -> int:
        """Return about how many bytes the states of one sequence take."""
        return 4 * layers * sum(prod(shape) for shape in shapes)

    def layer(self, index: int) -> Any:
        """Return the two states of a layer, float32 (slots, *shape); with tentative tokens its ``ops.Window`` too.

        Raises:
            PioError: The cache was freed.
        """
        states = self._living()[index]
        return (*states, self._windows.layer(index)) if self._windows else states

    def state_memory(self) -> list[Tensor]:
        """Return the states of all layers.

        Raises:
            PioError: The cache was freed.
        """
        return [state for layer in self._living() for state in layer]

    def begin_step(self, tentative: Sequence[Tentative]) -> None:
        """Take note of which sequences of the next step are tentative; those of the last one can be committed no more.

        Raises:
            CapacityError: They have more tokens than there is room for.
        """
        if self._windows is not None:
            self._windows.begin_step(tentative)
        elif tentative:
            raise CapacityError(
                "a sequence of the step is tentative, this cache has no room to keep its tokens; make the states with "
                "tentative_tokens, or let no sequence be tentative"
            )

    def commit(self, slot: int, tokens: int) -> None:
        """Let a slot's states take in the first tokens of its tentative slice in the last step.

        Raises:
            CapacityError: There is no such slot, or that step has fewer tentative tokens of it.
            PioError: The cache was freed.
        """
        self._check_slot(slot)
        self._living()
        if self._windows is not None:
            self._windows.commit(slot, tokens, (self._across(0, slot), self._across(1, slot)))
        elif tokens:
            raise CapacityError(
                f"{tokens} tokens of slot {slot} are to be committed: this cache has no room to keep tokens; make the "
                "states with tentative_tokens"
            )

    def forget(self, slot: int) -> None:
        """Let go of a slot's tentative tokens, for its states are others now."""
        if self._windows is not None:
            self._windows.forget(slot)

    def copy(self, source: int, target: int) -> None:
        """Copy the states of a slot to another one.

        Raises:
            CapacityError: There is no such slot.
            PioError: The cache was freed.
        """
        for state, found in zip(self._of(target), self._of(source), strict=True):
            state.copy_(found)
        self.forget(target)

    def snapshot(self, slot: int, length: int) -> Snapshot:
        """Return a copy of a sequence's states, which are behind its first ``length`` tokens.

        Raises:
            CapacityError: There is no such slot.
            PioError: The cache was freed.
        """
        states = self._of(slot)
        copy = Tensor.empty((sum(state.size for state in states),), device=states[0].device)
        at = 0
        for state in states:
            copy[at : at + state.size].copy_(state)
            at += state.size
        return Snapshot(length, len(states) // 2, self._shapes, copy)

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """Put a sequence's states back.

        Raises:
            CapacityError: There is no such slot.
            ConfigError: The snapshot is of a model of other shapes.
            PioError: The cache was freed.
        """
        states, saved = self._of(slot), snapshot.states
        if saved is None or (snapshot.layers, snapshot.shapes) != (len(states) // 2, self._shapes):
            raise ConfigError(
                f"a snapshot of {snapshot.layers} layers with states {snapshot.shapes} does not fit this cache of "
                f"{len(states) // 2} layers with states {self._shapes}; restore it into the model that it was taken of"
            )
        at = 0
        for state in states:
            state.copy_(saved[at : at + state.size])
            at += state.size
        self.forget(slot)

    def free(self) -> None:
        """Give the memory back; neither the cache nor steps recorded with it can be used any more."""
        self._storage.free()
        if self._windows is not None:
            self._windows.free()
        self._layers = None

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.slots:
            raise CapacityError(f"slot {slot} does not exist: this cache has states for {self.slots} sequences")

    def _across(self, kind: int, slot: int) -> Tensor:
        """One of a slot's states in all layers, (layers, *shape)."""
        layers = self._living()
        own = layers[0][kind][slot]
        shape, strides = (len(layers), *own.shape), (self._apart, *own.strides)
        return Tensor(self._storage, own.address, float32, shape, strides)

    def _of(self, slot: int) -> list[Tensor]:
        """A slot's states, flat, layer by layer."""
        self._check_slot(slot)
        return [states[slot].reshape(-1) for layer in self._living() for states in layer]

    def _living(self) -> list[tuple[Tensor, Tensor]]:
        """The states of all layers, as long as there are any."""
        if self._layers is None:
            raise PioError("this cache was freed; make another with model.new_cache")
        return self._layers
