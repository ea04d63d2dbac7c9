"""The blocks of a cache: how many sequences hold each, and which is taken next."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from pio.cache.known_blocks import KnownBlocks
from pio.errors import CacheError


class BlockPool:
    """A fixed number of blocks, each of which nobody, one sequence or several hold.

    A block that is known by what it holds is kept when nobody holds it any more, until no other is free.

    Attributes:
        num_blocks: Blocks in all.
        num_shared: Blocks with more than one owner.
        known: Blocks that are known by what they hold.
    """

    def __init__(self, num_blocks: int, known: KnownBlocks, evicted: Callable[[bytes], object]) -> None:
        """Make a pool of which nobody holds anything.

        Args:
            num_blocks: Blocks in all.
            known: None so far.
            evicted: Called with the key of a block that is known no more, for its room is needed.
        """
        self.num_blocks = num_blocks
        self.known = known
        self._evicted = evicted
        self.reset()

    def reset(self) -> None:
        """Have all blocks back, whoever holds them."""
        self._free = list(range(self.num_blocks - 1, -1, -1))  # a stack: low numbers first, warm ones again
        self._owners = array("i", bytes(4 * self.num_blocks))
        self.num_shared = 0
        self.known.clear()

    @property
    def num_free(self) -> int:
        """Blocks nobody holds, those among them that are kept for what they hold."""
        return len(self._free) + self.known.num_kept

    def owners(self, block: int) -> int:
        """How many sequences hold a block."""
        return self._owners[block]

    def next(self) -> int:
        """Return the block that is taken next; where none is empty, one that is kept becomes so."""
        if not self._free:
            block, key = self.known.evict()
            self._evicted(key)
            self._free.append(block)
        return self._free[-1]

    def take(self) -> int:
        """Hold the next block alone, and return it."""
        block = self.next()
        self._free.pop()
        self._owners[block] = 1
        return block

    def hold(self, block: int) -> None:
        """Hold a block beside others, or one that is kept."""
        owners = self._owners[block] = self._owners[block] + 1
        if owners == 1:
            self.known.hold(block)
        elif owners == 2:
            self.num_shared += 1

    def give_back(self, block: int, *, first: bool = False) -> None:
        """Hold a block no more; of those that are kept it goes before all others where it is to be the ``first``.

        Raises:
            CacheError: Nobody holds it.
        """
        left = self._owners[block] - 1
        if left < 0:
            raise CacheError(f"block {block} of the cache was released twice")
        self._owners[block] = left
        if left == 0:
            if not self.known.keep(block, first=first):
                self._free.append(block)
        elif left == 1:
            self.num_shared -= 1
