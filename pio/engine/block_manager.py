"""Hands out the blocks of a paged cache."""

from __future__ import annotations

from array import array

from pio.errors import ConfigError


class BlockManager:
    """A fixed pool of blocks: sequences take them as they grow and give all back when they end.

    Attributes:
        block_size: Tokens a block.
        num_blocks: Blocks in the pool.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ConfigError(f"a cache needs at least one block of one token, found {num_blocks} of {block_size}")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.reset()

    def reset(self) -> None:
        """Have all blocks back, whoever holds them."""
        self._free = list(range(self.num_blocks - 1, -1, -1))  # a stack: low numbers first, warm ones again

    @property
    def num_free(self) -> int:
        """Blocks nobody holds."""
        return len(self._free)

    @property
    def num_tokens(self) -> int:
        """Tokens that fit into the whole pool."""
        return self.num_blocks * self.block_size

    def blocks_needed(self, length: int) -> int:
        """Blocks for a sequence of that many tokens."""
        return -(-length // self.block_size)

    def grow(self, table: array[int], length: int) -> bool:
        """Extend a block table to cover ``length`` tokens; False, and nothing taken, where too few are free."""
        missing = self.blocks_needed(length) - len(table)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            table.append(self._free.pop())
        return True

    def release(self, table: array[int]) -> None:
        """Take back all blocks of a table and empty it."""
        self._free.extend(reversed(table))
        del table[:]
