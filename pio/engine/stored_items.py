"""What of a cache can lie on disk, block by block: as items of a store, and as memory that is read and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, cast

from pio.cache.pool_bytes import PoolBytes, pool_bytes
from pio.cache.protocol import Cache, StoredStates
from pio.device import Device
from pio.errors import ConfigError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.store.disk_store import DiskStore
from pio.store.reader import Place

BLOCK: Final = "block"
STATES: Final = "states"  # with the number of the part behind it
PART: Final = 1 << 20  # bytes of a part of states, at least: what is read between two steps is some of them
MOST_PARTS: Final = 256

Wanted: TypeAlias = tuple[Place, PoolBytes, int]  # where an item lies on disk, and the block or slot that it is for


class StoredItems:
    """Items of a block and of the states behind it, which have the block's key.

    States are large, so they are an item for some layers each; all of them lie in one segment, so that they are there
    as a whole or not at all, unless somebody damages it.

    Attributes:
        block_bytes: Bytes of a block.
        state_bytes: Bytes of states, zero where a cache has none.
        largest: Bytes of the largest item.
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
        sizes = [t.nbytes // t.shape[0] for t in self._cache.state_memory()] if cache.state_bytes else []
        self.state_bytes = sum(sizes)
        self._ends = _cut(sizes, max(PART, self.state_bytes // MOST_PARTS))
        parts = zip([0, *self._ends], self._ends, strict=False)
        self.largest = max([self.block_bytes, *(sum(sizes[begin:end]) for begin, end in parts)])
        self.kinds = [f"{STATES}{i}" for i in range(len(self._ends))]
        self._blocks: PoolBytes | None = None
        self._states: list[PoolBytes] = []
        self._spare = memoryview(b"")

    def reserve(self, nbytes: int, budget: MemoryBudget | None) -> None:
        """Have memory for what is read side by side, where it cannot be read in place: for a GPU.

        Raises:
            OutOfMemoryError: The budget or the system refuses it.
        """
        if self.device.stream is not None:
            self._spare = Storage.allocate(nbytes, budget=budget, what="what is read for a GPU").memoryview()

    @property
    def spare_bytes(self) -> int:
        """Bytes of that memory."""
        return len(self._spare)

    @property
    def device(self) -> Device:
        """Where the cache lies."""
        return self._cache.block_memory()[0].device

    def clear(self) -> None:
        """Let go of the memory of the cache, which views keep."""
        self._blocks, self._states = None, []

    @property
    def blocks(self) -> PoolBytes:
        """Memory of blocks."""
        if self._blocks is None:
            self._blocks = pool_bytes(self._cache.block_memory())
        return self._blocks

    @property
    def states(self) -> list[PoolBytes]:
        """Memory of states, for each of their items."""
        if not self._states:
            found = self._cache.state_memory()
            cuts = zip([0, *self._ends], self._ends, strict=False)
            self._states = [pool_bytes(found[begin:end]) for begin, end in cuts]
        return self._states

    def read(self, store: DiskStore, wanted: Sequence[Wanted]) -> int:
        """Read items into the cache, side by side.

        Args:
            store: Where they are.
            wanted: What is overwritten with what, in any case where memory is written in place; elsewhere no more bytes
                than there is memory for.

        Returns:
            How many of them, from the first on, were there and whole.
        """
        rooms, at = list[list[memoryview]](), 0
        for _, pool, index in wanted:
            rooms.append(pool.rooms(index, self._spare[at:]))
            at += pool.nbytes
        done = store.read([(place, room) for (place, _, _), room in zip(wanted, rooms, strict=True)])
        for (_, pool, index), room in zip(wanted[:done], rooms, strict=False):
            pool.put(index, room)
        return done

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
