"""What of a cache can lie on disk, block by block: as items of a store, and as memory that is read and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from pio.cache.protocol import Cache, StoredCache, StoredStates
from pio.errors import ConfigError
from pio.store.disk_store import DiskStore
from pio.store.reader import Place

BLOCK: Final = "block"
STATES: Final = "states"  # with the number of the part behind it
PART: Final = 1 << 20  # bytes of a part of states, at least: what is read between two steps is some of them
MOST_PARTS: Final = 256

Pool = tuple[memoryview, int]  # memory, and how many bytes of it are one block or slot


class StoredItems:
    """Items of a block and of the states behind it, which have the block's key.

    States are large, so they are an item for some layers each; all of them lie in one segment, so that they are there
    as a whole or not at all, unless somebody damages it.

    Attributes:
        block_bytes: Bytes of a block.
        state_bytes: Bytes of states, zero where a cache has none.
        kinds: Of the items of states, in their order.
    """

    def __init__(self, cache: Cache) -> None:
        """Look at how a cache lies in memory.

        Raises:
            ConfigError: It does not show that.
        """
        wanted = ["block_memory", *(["state_memory"] if cache.state_bytes else [])]
        lacking = [name for name in wanted if not hasattr(cache, name)]
        if lacking:
            what, base = "blocks", "pio.cache.paged.PagedCache"
            if cache.state_bytes:
                what, base = "blocks and states", "pio.cache.hybrid.HybridCache"
            raise ConfigError(
                f"prefix_cache_path cannot be used: {type(cache).__name__} does not show the memory of its {what}; "
                f"derive it from {base}, or add {' and '.join(lacking)}"
            )
        self._cache = cast(StoredStates, cache)
        self.block_bytes = cache.block_bytes
        sizes = [nbytes for _, nbytes in self._cache.state_memory()] if cache.state_bytes else []
        self.state_bytes = sum(sizes)
        self._ends = _cut(sizes, max(PART, self.state_bytes // MOST_PARTS))
        self.kinds = [f"{STATES}{i}" for i in range(len(self._ends))]
        self._blocks: list[Pool] = []
        self._states: list[Pool] = []

    def clear(self) -> None:
        """Let go of the memory, which views keep."""
        self._blocks, self._states = [], []

    def block(self, block: int) -> list[memoryview]:
        """Return the memory of a block, layer by layer."""
        if not self._blocks:
            self._blocks = cast(StoredCache, self._cache).block_memory()
        return [_slice(pool, block) for pool in self._blocks]

    def states(self, slot: int) -> list[list[memoryview]]:
        """Return the memory of the states in a slot, for each of their items."""
        if not self._states:
            self._states = self._cache.state_memory()
        found = [_slice(pool, slot) for pool in self._states]
        return [found[begin:end] for begin, end in zip([0, *self._ends], self._ends, strict=False)]

    def find_block(self, store: DiskStore, key: bytes) -> Place | None:
        """Return where a block lies on disk."""
        return store.find(BLOCK, key)

    def find_states(self, store: DiskStore, key: bytes) -> list[Place] | None:
        """Return where all parts of the states behind a block lie on disk."""
        found: list[Place] = []
        for kind in self.kinds:
            place = store.find(kind, key)
            if place is None:
                return None
            found.append(place)
        return found or None


def _cut(sizes: Sequence[int], least: int) -> list[int]:
    """Return where parts end that have so many bytes at least, but for the last one."""
    ends, nbytes = list[int](), 0
    for i, size in enumerate(sizes):
        nbytes += size
        if nbytes >= least or i == len(sizes) - 1:
            ends.append(i + 1)
            nbytes = 0
    return ends


def _slice(pool: Pool, index: int) -> memoryview:
    memory, nbytes = pool
    return memory[index * nbytes : (index + 1) * nbytes]
