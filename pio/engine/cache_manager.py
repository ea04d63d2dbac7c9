"""Who holds which blocks and slots of a cache."""

from __future__ import annotations

from array import array

from pio.cache.protocol import Cache
from pio.cache.snapshot import Snapshot
from pio.engine.sequence import NO_SLOT, Sequence
from pio.errors import CacheError, CapacityError, ConfigError


class CacheManager:
    """A fixed pool of blocks and slots: sequences take them as they grow and give all back when they end.

    A block may have several owners, as have those of a prompt with several answers. Before one of them writes into it,
    that one gets a copy of its own. A slot has one owner.

    Attributes:
        block_size: Tokens a block.
        num_blocks: Blocks in the pool.
        num_slots: Sequences that hold anything at once.
        num_shared: Blocks with more than one owner.
    """

    def __init__(self, cache: Cache, num_slots: int) -> None:
        """Manage a cache that nobody else hands out.

        Args:
            cache: Made by the model.
            num_slots: Sequences that run at once, at most as many as the cache has states for.

        Raises:
            ConfigError: The cache has no block or token.
        """
        if cache.num_blocks < 1 or cache.block_size < 1:
            found = f"{cache.num_blocks} of {cache.block_size}"
            raise ConfigError(f"a cache needs at least one block of one token, found {found}")
        self._cache = cache
        self.num_blocks = cache.num_blocks
        self.block_size = cache.block_size
        self.num_slots = num_slots
        self.reset()

    def reset(self) -> None:
        """Have all blocks and slots back, whoever holds them."""
        self._free = list(range(self.num_blocks - 1, -1, -1))  # a stack: low numbers first, warm ones again
        self._free_slots = list(range(self.num_slots - 1, -1, -1))
        self._owners = array("i", bytes(4 * self.num_blocks))
        self.num_shared = 0

    @property
    def num_free(self) -> int:
        """Blocks nobody holds."""
        return len(self._free)

    @property
    def num_free_slots(self) -> int:
        """Slots nobody holds."""
        return len(self._free_slots)

    @property
    def num_tokens(self) -> int:
        """Tokens that fit into the whole pool."""
        return self.num_blocks * self.block_size

    def owners(self, block: int) -> int:
        """How many sequences hold a block."""
        return self._owners[block]

    def blocks_needed(self, length: int) -> int:
        """Blocks for a sequence of that many tokens."""
        return -(-length // self.block_size)

    def admit(self, sequence: Sequence, reserve: int) -> bool:
        """Give a sequence a slot, and blocks for all of its tokens.

        Args:
            sequence: It holds nothing so far.
            reserve: Blocks that must be free afterwards.

        Returns:
            Whether there is room; where there is none, nothing is taken.
        """
        length = len(sequence.tokens)
        if not self.num_free_slots or self.num_free - self.blocks_needed(length) < reserve:
            return False
        sequence.slot = self._free_slots.pop()
        return self.grow(sequence, length)

    def grow(self, sequence: Sequence, length: int) -> bool:
        """Have room for tokens up to ``length``: more blocks, and copies of shared ones that it will write to.

        Returns:
            Whether enough were free; where they were not, nothing is taken.
        """
        table, size = sequence.blocks, self.block_size
        if length <= len(table) * size and not self.num_shared:
            return True
        shared = self._shared(table, sequence.num_computed // size)
        missing = max(0, self.blocks_needed(length) - len(table))
        if missing + len(shared) > self.num_free:
            return False
        for i in shared:
            self._cache.copy_block(table[i], self._free[-1])  # which is taken where that succeeds
            self._give_back(table[i])
            table[i] = self._take()
        for _ in range(missing):
            table.append(self._take())
        return True

    def fork(self, source: Sequence, target: Sequence, reserve: int) -> bool:
        """Let a sequence go on where another one stands: it shares all blocks, and has a copy of the states.

        Args:
            source: The model has seen all that its blocks are for.
            target: It holds nothing so far.
            reserve: Blocks that must be free afterwards.

        Returns:
            Whether there is room; where there is none, nothing is taken.
        """
        if not self.num_free_slots or self.num_free < reserve:
            return False
        target.slot = self._free_slots.pop()
        for block in source.blocks:
            self._owners[block] += 1
            self.num_shared += self._owners[block] == 2
            target.blocks.append(block)
        self._cache.copy_states(source.slot, target.slot)
        return True

    def truncate(self, sequence: Sequence, length: int, snapshot: Snapshot | None = None) -> None:
        """Take a sequence back to its first ``length`` tokens, and have the blocks behind them back.

        Args:
            sequence: The tokens stay; the model has to see those behind ``length`` once more.
            length: At most as many as the model has seen.
            snapshot: Its states at that length; recurrent layers need it unless the length is zero.

        Raises:
            CapacityError: The sequence never was there, or its states cannot go back without a snapshot.
            CacheError: A block is not held.
        """
        if length > sequence.num_computed or (snapshot is not None and snapshot.length != length):
            there = sequence.num_computed if snapshot is None else snapshot.length
            raise CapacityError(f"a sequence cannot go back to {length} tokens from {there}")
        if snapshot is not None:
            self._cache.restore(sequence.slot, snapshot)
        elif length < sequence.num_computed:
            self._cache.truncate(sequence.slot, length)
        sequence.num_computed = length
        kept = self.blocks_needed(length)
        while len(sequence.blocks) > kept:
            self._give_back(sequence.blocks.pop())

    def release(self, sequence: Sequence) -> None:
        """Take back all that a sequence holds, if anything.

        Raises:
            CacheError: A block or the slot is not held.
        """
        self.truncate(sequence, 0)
        slot, sequence.slot = sequence.slot, NO_SLOT
        if slot != NO_SLOT:
            if slot in self._free_slots:
                raise CacheError(f"slot {slot} of the cache was released twice")
            self._free_slots.append(slot)

    def _shared(self, table: array[int], first: int) -> list[int]:
        """Where a table, from block ``first`` on, has blocks of several owners."""
        return [i for i in range(first, len(table)) if self._owners[table[i]] > 1] if self.num_shared else []

    def _take(self) -> int:
        block = self._free.pop()
        self._owners[block] = 1
        return block

    def _give_back(self, block: int) -> None:
        left = self._owners[block] - 1
        if left < 0:
            raise CacheError(f"block {block} of the cache was released twice")
        self._owners[block] = left
        if left == 0:
            self._free.append(block)
        elif left == 1:
            self.num_shared -= 1
