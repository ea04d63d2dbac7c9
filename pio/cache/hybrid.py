"""A cache of two kinds: some layers attend to all positions, the others keep a state."""

from __future__ import annotations

from collections.abc import Sequence

from pio.cache.paged import PagedKVCache
from pio.cache.recurrent import RecurrentStates
from pio.tensor import Tensor


class HybridCache:
    """Pages of keys and values for layers that attend, states for those that recur.

    Attributes:
        paged: Of the layers that attend, in their order.
        recurrent: Of the others.
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
        position_bytes: Bytes of a position in one layer that attends.
        state_bytes: Bytes of the states of a sequence in all layers that do not.
    """

    def __init__(self, attends: Sequence[bool], paged: PagedKVCache, recurrent: RecurrentStates) -> None:
        """Put a cache together.

        Args:
            attends: For each layer of the model, whether it attends.
            paged: Keys and values, as many layers as attend.
            recurrent: States, as many layers as do not.
        """
        self.paged, self.recurrent = paged, recurrent
        self._attends = list(attends)
        self.block_size, self.num_blocks = paged.block_size, paged.num_blocks
        self.nbytes = paged.nbytes + recurrent.nbytes
        self.position_bytes = paged.position_bytes
        self.state_bytes = recurrent.nbytes // recurrent.slots

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values, or its two states.

        Raises:
            PioError: The cache was freed.
        """
        own: PagedKVCache | RecurrentStates = self.paged if self._attends[index] else self.recurrent
        return own.layer(sum(kind is self._attends[index] for kind in self._attends[:index]))

    def free(self) -> None:
        """Give the memory back; the cache cannot be used any more."""
        self.paged.free()
        self.recurrent.free()
