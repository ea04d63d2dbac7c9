"""States of recurrent layers: of a fixed size, whatever the length of the sequence."""

from __future__ import annotations

from math import prod

from pio.cache.snapshot import Shape, Snapshot
from pio.device import Device
from pio.dtypes import float32
from pio.errors import CapacityError, ConfigError, PioError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.tensor import Tensor, row_major


class RecurrentStates:
    """Two float32 states for each layer and slot: what a convolution still needs, and the recurrence's own.

    A sequence has one slot in all layers while it runs. Its first token finds a state of zeros whatever the slot
    holds, so that a slot needs no clearing.

    Attributes:
        slots: Sequences that run at once.
        nbytes: Bytes in all.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        shapes: tuple[Shape, Shape],
        *,
        budget: MemoryBudget | None = None,
        device: Device | None = None,
    ) -> None:
        """Reserve states; the system gives the memory as they are first written.

        Args:
            layers: Layers that recur.
            slots: Sequences that run at once.
            shapes: Of a layer's two states for one sequence.
            budget: Counts the memory and refuses what exceeds its limit.
            device: Where it lies.

        Raises:
            OutOfMemoryError: The budget or the machine cannot give that much.
        """
        self.slots = slots
        self._shapes = shapes
        sizes = [-(-4 * slots * prod(shape) // 64) * 64 for shape in shapes]
        self.nbytes = layers * sum(sizes)
        what = f"the states of {slots} sequences (fewer with max_batch_sequences)"
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

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the two states of a layer, float32 (slots, *shape).

        Raises:
            PioError: The cache was freed.
        """
        if self._layers is None:
            raise PioError("this cache was freed; make another with model.new_cache")
        return self._layers[index]

    def copy(self, source: int, target: int) -> None:
        """Copy the states of a slot to another one.

        Raises:
            CapacityError: There is no such slot.
            PioError: The cache was freed.
        """
        for state, found in zip(self._of(target), self._of(source), strict=True):
            state.copy_(found)

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

    def free(self) -> None:
        """Give the memory back; neither the cache nor steps recorded with it can be used any more."""
        self._storage.free()
        self._layers = None

    def _of(self, slot: int) -> list[Tensor]:
        """A slot's states, flat, layer by layer."""
        if not 0 <= slot < self.slots:
            raise CapacityError(f"slot {slot} does not exist: this cache has states for {self.slots} sequences")
        if self._layers is None:
            raise PioError("this cache was freed; make another with model.new_cache")
        return [states[slot].reshape(-1) for layer in self._layers for states in layer]
