"""What of the cache is on disk too: read for whoever begins with it, written when it is given back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from pio.cache.protocol import Cache
from pio.engine.cache_manager import CacheManager
from pio.engine.prefix_reads import PrefixReads, room_bytes
from pio.engine.prefix_writes import PrefixWrites
from pio.engine.sequence import Sequence
from pio.engine.stored_items import StoredItems
from pio.errors import ConfigError
from pio.memory.budget import MemoryBudget
from pio.store.disk_store import DiskStore, buffer_bytes
from pio.thread_log import ThreadLog

_log = ThreadLog("pio.engine")

CLOSING: Final = 5.0  # seconds in which what is not written yet may be, when a model is closed


class DiskOptions(NamedTuple):
    """Where beginnings of prompts are kept on disk.

    Attributes:
        folder: As ``pio.store.folder.prepare`` returns it.
        limit: Bytes that all segments in it may take.
        identity: Of the model: a digest of all that decides what it computes.
        holds: Asked now and then whether that is still true; where it is not, nothing more is read or written.
        watch: Makes what the thread that runs the model is in meanwhile, so that ``holds`` knows.
    """

    folder: Path
    limit: int
    identity: bytes
    holds: Callable[[], bool] = lambda: True
    watch: Callable[[], AbstractContextManager[object]] = nullcontext


class DiskNeeds(NamedTuple):
    """Bytes of memory that a cache on disk takes.

    Attributes:
        here: Of this process.
        there: Of the GPU that the cache is on, if it is on one.
    """

    here: int
    there: int

    @classmethod
    def of(cls, cache: Cache, *, on_gpu: bool) -> DiskNeeds:
        """Say it of a cache that lies on a GPU, or is to: buffers here and there, and what is read comes here first.

        Raises:
            ConfigError: The cache does not show its memory.
        """
        buffers = buffer_bytes(max(cache.block_bytes, cache.state_bytes))
        return cls(buffers + room_bytes(StoredItems(cache)), buffers) if on_gpu else cls(buffers, 0)


class StoredPrefixes:
    """Blocks that are known by their keys, and states behind them, in a store that outlives the process.

    A sequence that has been admitted, and may begin further on with what is on disk, has that read, a piece between any
    two steps, and takes no part in these meanwhile. Where something is not there any more, or is damaged, it begins
    earlier, and computes the rest. What it reads becomes known like what it computes.

    Attributes:
        store: Where it is.
        watch: See ``DiskOptions``.
    """

    def __init__(
        self, options: DiskOptions, manager: CacheManager, cache: Cache, budget: MemoryBudget | None = None
    ) -> None:
        """Read and write what of a cache is known.

        Args:
            options: Where to.
            manager: Who holds which blocks; it tells of those that are given back.
            cache: What they are in.
            budget: Counts the buffers in which segments are put together.

        Raises:
            ConfigError: The cache does not show its memory or keeps no states, or the limit is less than a segment.
            OutOfMemoryError: The budget has no room for the buffers.
        """
        if cache.state_bytes and not manager.states.most:
            raise ConfigError(
                f"prefix_cache_path cannot be used: this model's cache has states for {cache.state_slots} sequences, "
                f"all of which may run ({manager.num_slots} at once), and none to keep; leave it out"
            )
        folder, limit, _, self._holds, self.watch = options
        self._items = items = StoredItems(cache)
        largest, ways = max(items.block_bytes, items.state_bytes), items.state_bytes > 0
        self.store = DiskStore(folder, manager.root, limit, largest, ways=ways, budget=budget, device=items.device)
        items.reserve(room_bytes(items), budget)
        self._manager, self._folder, self._over = manager, folder, False
        self._reads = PrefixReads(items, self.store, manager)
        self._writes = PrefixWrites(items, self.store, manager, limit)
        manager.on_release = self._offer
        manager.known.leaving = manager.states.kept.leaving = self._writes.lose

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes beside the cache."""
        return self.store.nbytes + self._items.spare_bytes

    @property
    def tokens(self) -> int:
        """Tokens of prompts that were read from disk, and not computed."""
        return self._reads.tokens

    @property
    def reading(self) -> bool:
        """Whether any sequence waits for what it begins with."""
        return bool(self._reads)

    def begin(self, sequence: Sequence, *, counted: bool) -> None:
        """Have a sequence wait for what is on disk behind the blocks that it was admitted with, if there is anything.

        Args:
            sequence: It was admitted, and has not run since.
            counted: Whether what it finds counts as found; not where it has given way and finds its own.
        """
        if self._is_true():
            self.store.look()
            self._reads.begin(sequence, counted=counted)

    def forget(self, sequence: Sequence) -> None:
        """Read no more for a sequence; it may run with what it has."""
        self._reads.forget(sequence)

    @property
    def first(self) -> Sequence:
        """The sequence that has waited longest."""
        return self._reads.first

    def advance(self) -> None:
        """Read a piece for the sequence that has waited longest; errors as ``PrefixReads.advance`` raises them."""
        if self._is_true():
            self._reads.advance()

    def unread(self, sequence: Sequence, tokens: int) -> int:
        """Return how many of the last ``tokens`` of a sequence that has not begun are not on disk either."""
        if not self._is_true():
            return tokens
        self.store.look()
        return self._reads.unread(sequence, tokens)

    def write(self, *, idle: bool) -> None:
        """Hand over what is to be written, as far as there are buffers for it.

        Args:
            idle: Whether nothing runs; else only whole segments are.
        """
        if self._is_true():
            self._writes.write(idle=idle)

    def rest(self) -> float | None:
        """Return for how many seconds there is nothing to do where nothing runs; None until something comes."""
        return self._writes.rest()

    def finish(self, running: Iterable[Sequence]) -> None:
        """Write what is left, as far as a few seconds allow, also of sequences that run; nothing more is done then."""
        end = monotonic() + CLOSING
        for sequence in running:
            self._manager.learn((sequence,))
            self._offer(sequence)
        self._writes.write(idle=True, end=end)
        while self._writes and self.store.keeps and self.store.wait(end - monotonic()):
            self._writes.write(idle=True, end=end)
        self.clear()
        self._manager.on_release = self._manager.known.leaving = self._manager.states.kept.leaving = None
        self.store.close(max(0.0, end - monotonic()))

    def _offer(self, sequence: Sequence) -> None:
        if self._is_true():
            self._writes.offer(sequence)

    def _is_true(self) -> bool:
        """Whether the model computes what its identity says; the first time that it does not, all is let go."""
        if not self._over and not self._holds():
            self._over = True
            self._reads.clear()
            self._writes.clear()
            self.store.stop()
            _log.warning(
                "nothing more is read from %s or kept there: a kernel of the GPU turned out to be missing, and the "
                "CPU's, which has other last bits, runs in its place",
                self._folder,
            )
        return not self._over

    def clear(self) -> None:
        """Let go of all sequences and of the cache."""
        self._reads.clear()
        self._writes.clear()
        self._items.clear()
