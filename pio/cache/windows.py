"""Room for the tokens of one step that may not stand: what recurrent layers need to take in those that do."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from pio import ops
from pio.cache.snapshot import Shape
from pio.device import Device, on_device
from pio.dtypes import float32
from pio.errors import CapacityError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.ops.slices import Tentative
from pio.ops.window import desks_shape, window_shapes
from pio.tensor import Tensor, row_major

TOKENS: Final = 64  # of all sequences of a step together: a mixture of experts gains by drafts of so many


class Windows:
    """A window for each recurrent layer, and which tokens of which sequences the last step left in it.

    Attributes:
        tokens: How many fit, of all sequences of a step together.
        nbytes: Bytes in all.
    """

    def __init__(
        self,
        layers: int,
        tokens: int,
        states: tuple[Shape, Shape],
        key_heads: int,
        *,
        budget: MemoryBudget | None = None,
        device: Device | None = None,
    ) -> None:
        """Reserve windows; the system gives the memory as they are first written.

        Args:
            layers: Layers that recur.
            tokens: How many a step may have.
            states: Shapes of a layer's states of one sequence, as the operations of ``pio.ops`` have them.
            key_heads: Of a layer.
            budget: Counts the memory and refuses what exceeds its limit.
            device: Where it lies.

        Raises:
            OutOfMemoryError: The budget or the machine cannot give that much.
        """
        self.tokens = tokens
        shapes, desks = window_shapes(tokens, states, key_heads), desks_shape(states, on_device(device))
        apart = sum(map(_whole_lines, shapes.values()))  # bytes from layer to layer
        self.nbytes = layers * apart + _whole_lines(desks)
        what = f"room for {tokens} tokens that may not stand, in {layers} recurrent layers"
        self._storage = storage = Storage.allocate(self.nbytes, budget=budget, what=what, device=device)
        self._desks = Tensor(storage, storage.address + layers * apart, float32, desks, row_major(desks))
        self._all: dict[str, Tensor] = {}
        at = storage.address
        for name, shape in shapes.items():
            full, strides = (layers, *shape), (apart // 4, *row_major(shape))
            self._all[name] = Tensor(storage, at, float32, full, strides)
            at += _whole_lines(shape)
        self._kept: dict[int, Tentative] = {}

    def layer(self, index: int) -> ops.Window:
        """Return the window of a layer."""
        return ops.Window(desks=self._desks, **{name: tensor[index] for name, tensor in self._all.items()})

    def begin_step(self, tentative: Sequence[Tentative]) -> None:
        """Take note of whose tokens the next step keeps; those of the last one can no longer be committed.

        Raises:
            CapacityError: They do not fit.
        """
        self._kept.clear()
        for sequence in tentative:
            needed = sequence.first + sequence.tokens
            if needed > self.tokens:
                raise CapacityError(
                    f"{needed} tokens of a step are tentative, this cache has room for {self.tokens}; draft fewer, or "
                    "let fewer sequences of a step have drafts"
                )
            self._kept[sequence.slot] = sequence

    def forget(self, slot: int) -> None:
        """Let go of a slot's tokens: its states are others now."""
        self._kept.pop(slot, None)

    def commit(self, slot: int, tokens: int, states: tuple[Tensor, Tensor]) -> None:
        """Let a slot's states take in its first tokens of the last step, and forget the others.

        Args:
            slot: Which one.
            tokens: How many stand.
            states: Both states of that slot in all layers, float32 (layers, *shape).

        Raises:
            CapacityError: The last step kept fewer of its tokens.
        """
        kept = self._kept.pop(slot, None)
        has = 0 if kept is None else kept.tokens
        if not 0 <= tokens <= has:
            raise CapacityError(
                f"{tokens} tokens of slot {slot} are to be committed: the last step left {has} that may be; commit at "
                "most the tentative tokens of the slot, once, before its states are copied over or put back"
            )
        if kept is None or not tokens:
            return
        inputs, state = states
        window = self._all
        ops.commit_inputs(inputs, window["inputs"], kept.first, tokens, fresh=kept.fresh)
        by = window["learned"], window["keys"], window["decay"]
        ops.commit_delta(state, *by, kept.first, tokens, fresh=kept.fresh)

    def free(self) -> None:
        """Give the memory back."""
        self._storage.free()


def _whole_lines(shape: Shape) -> int:
    """Bytes of a float32 tensor in whole lines of the processor."""
    return -(-4 * prod(shape) // 64) * 64
