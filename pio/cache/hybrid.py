"""A cache of two kinds: some layers attend to all positions, the others keep a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pio.cache.paged import PagedCache
from pio.cache.recurrent import RecurrentStates
from pio.cache.snapshot import Snapshot
from pio.errors import CapacityError
from pio.ops.slices import Tentative
from pio.tensor import Tensor


class HybridCache:
    """Pages of keys and values for layers that attend, states for those that recur.

    Attributes:
        paged: Of the layers that attend, in their order.
        recurrent: Of the others.
        format: How layers that attend store positions.
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
        block_bytes: Bytes of a block in all layers that attend.
        state_bytes: Bytes of the states of a sequence in all layers that do not.
        tentative_tokens: How many tokens of a step may leave the states as they are.
        state_slots: Sequences that there are states for.
    """

    def __init__(self, attends: Sequence[bool], paged: PagedCache, recurrent: RecurrentStates) -> None:
        """Put a cache together.

        Args:
            attends: For each layer of the model, whether it attends.
            paged: Keys and values, as many layers as attend.
            recurrent: States, as many layers as do not.
        """
        self.paged, self.recurrent = paged, recurrent
        self._attends = list(attends)
        self.block_size, self.num_blocks = paged.block_size, paged.num_blocks
        self.nbytes = paged.nbytes + recurrent.nbytes + recurrent.window_bytes
        self.format, self.block_bytes = paged.format, paged.block_bytes
        self.state_bytes, self.state_slots = recurrent.nbytes // recurrent.slots, recurrent.slots
        self.tentative_tokens = recurrent.tentative_tokens

    def layer(self, index: int) -> Any:  # the mixer of that layer knows of which kind
        """Return what a layer keeps: its pages, as ``PagedCache.layer`` gives them, or what it recurs on.

        Raises:
            PioError: The cache was freed.
        """
        own: PagedCache | RecurrentStates = self.paged if self._attends[index] else self.recurrent
        return own.layer(sum(attends is self._attends[index] for attends in self._attends[:index]))

    def block_memory(self) -> list[Tensor]:
        """Return the tensors of all layers that attend.

        Raises:
            PioError: The cache was freed.
        """
        return self.paged.block_memory()

    def state_memory(self) -> list[Tensor]:
        """Return the states of all layers that recur.

        Raises:
            PioError: The cache was freed.
        """
        return self.recurrent.state_memory()

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block in all layers that attend.

        Raises:
            CapacityError: There is no such block.
            PioError: The cache was freed.
        """
        self.paged.copy_block(source, target)

    def copy_states(self, source: int, target: int) -> None:
        """Copy the states of a slot to another one.

        Raises:
            CapacityError: There is no such slot.
            PioError: The cache was freed.
        """
        self.recurrent.copy(source, target)

    def snapshot(self, slot: int, length: int) -> Snapshot:
        """Return a copy of a slot's states, which are behind ``length`` tokens of its sequence.

        Raises:
            CapacityError: There is no such slot.
            PioError: The cache was freed.
        """
        return self.recurrent.snapshot(slot, length)

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """Put states back, into the slot that they are of or any other.

        Raises:
            CapacityError: There is no such slot.
            ConfigError: The snapshot is of a model of other shapes.
            PioError: The cache was freed.
        """
        self.recurrent.restore(slot, snapshot)

    def truncate(self, slot: int, length: int) -> None:
        """Take a sequence back to no token at all, for a first token finds states of zeros.

        Raises:
            CapacityError: Any other length: what a recurrence has taken in cannot be taken out.
        """
        if length:
            raise CapacityError(
                f"a sequence of a model with recurrent layers cannot go back to {length} tokens; restore a snapshot "
                "that was taken there, or begin again"
            )
        self.recurrent.forget(slot)

    def begin_step(self, tentative: Sequence[Tentative]) -> None:
        """Take note of which sequences of the next step are tentative; those of the last one can be committed no more.

        Raises:
            CapacityError: They have more tokens than there is room for.
        """
        self.recurrent.begin_step(tentative)

    def commit(self, slot: int, tokens: int) -> None:
        """Let a slot's states take in the first tokens of its tentative slice in the last step.

        Raises:
            CapacityError: There is no such slot, or that step has fewer tentative tokens of it.
            PioError: The cache was freed.
        """
        self.recurrent.commit(slot, tokens)

    def free(self) -> None:
        """Give the memory back; neither the cache nor steps recorded with it can be used any more."""
        self.paged.free()
        self.recurrent.free()
