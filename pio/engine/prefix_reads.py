"""Beginnings of prompts that are read from disk, a piece between any two steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from pio.engine.cache_manager import CacheManager
from pio.engine.sequence import NO_SLOT, Sequence
from pio.engine.stored_items import StoredItems, Wanted
from pio.store.disk_store import DiskStore
from pio.thread_log import ThreadLog

_log = ThreadLog("pio.engine")

PIECE: Final = 8 << 20  # bytes that are read between two steps, one item at least
TOGETHER: Final = 2 << 20  # bytes that are read side by side, two items at least
PAUSE: Final = 0.02  # seconds that it may take; what a slow disk does not give by then, comes between the next two


@dataclass(slots=True)
class Reading:
    """How far a sequence is that begins with what is on disk.

    Attributes:
        first: Blocks that it was admitted with.
        target: Blocks that it will begin behind.
        counted: Whether what it finds counts as found.
        at: The block that is looked at next.
        read: Blocks that were read and are not known yet.
        slot: Where states are read to.
        parts: How many of their parts were read.
    """

    first: int
    target: int
    counted: bool
    at: int
    read: set[int] = field(default_factory=set[int])
    slot: int = NO_SLOT
    parts: int = 0


def room_bytes(items: StoredItems) -> int:
    """Return the most bytes that are read side by side."""
    return max(TOGETHER, 2 * items.largest)


class PrefixReads:
    """Sequences that wait for what they begin with.

    Blocks are read into a sequence's own ones, states into a slot that is lent for it. Without states what was read is
    known at once. With states it is when all of it is there, those first, for nobody can go on from less.

    Attributes:
        tokens: Tokens of prompts that were read from disk, and not computed.
    """

    def __init__(self, items: StoredItems, store: DiskStore, manager: CacheManager) -> None:
        self.tokens = 0
        self._items, self._store, self._manager = items, store, manager
        self._reading: dict[Sequence, Reading] = {}

    def __bool__(self) -> bool:
        """Whether any sequence waits."""
        return bool(self._reading)

    def begin(self, sequence: Sequence, *, counted: bool) -> None:
        """Have a sequence wait for what is on disk behind the blocks that it was admitted with, if that is of use."""
        first = sequence.num_computed // self._manager.block_size
        target, led = self._reach(sequence, first)
        if led > target and self._items.kinds:  # somebody went another way from there
            self._manager.states.part(sequence, led)
        if target > first:
            sequence.loading = True
            sequence.consumer.begin()
            self._reading[sequence] = Reading(first, target, counted, first)

    def forget(self, sequence: Sequence) -> None:
        """Read no more for a sequence; it may run with what it has."""
        sequence.loading = False
        reading = self._reading.pop(sequence, None)
        if reading is not None and reading.slot != NO_SLOT:
            self._manager.states.take_back(reading.slot)

    def clear(self) -> None:
        """Let go of all sequences."""
        for sequence in [*self._reading]:
            self.forget(sequence)

    @property
    def first(self) -> Sequence:
        """The sequence that has waited longest."""
        return next(iter(self._reading))

    def advance(self) -> None:
        """Read a piece for the sequence that has waited longest.

        Raises:
            Exception: What was read could not be taken in: states of the sequence may be anything, and it cannot go on.
        """
        end, left, sequence = monotonic() + PAUSE, PIECE, self.first
        reading = self._reading[sequence]
        try:
            while not (over := self._is_over(sequence, reading)) and left > 0:
                left -= self._read_some(sequence, reading, left)
                if monotonic() >= end:
                    left = 0
        except Exception as error:  # of memory, say: the sequence computes what it could not read
            over, reading.target = True, reading.first
            _log.warning("a prompt is computed and not read, for that failed: %s: %s", type(error).__name__, error)
        if over:
            try:
                self._take_in(sequence, reading)
            finally:
                self.forget(sequence)

    def unread(self, sequence: Sequence, tokens: int) -> int:
        """Return how many of the last ``tokens`` of a sequence that has not begun are not on disk either."""
        size = self._manager.block_size
        first = (len(sequence.tokens) - tokens) // size
        return tokens - (self._reach(sequence, first)[0] - first) * size

    def _reach(self, sequence: Sequence, first: int, most: int | None = None) -> tuple[int, int]:
        """Return how many blocks a sequence can begin behind, and how many there are, which may be more.

        Args:
            sequence: Which one.
            first: Blocks that it can begin behind anyway.
            most: Blocks that are looked at; as many as it may begin behind if None.
        """
        manager, size = self._manager, self._manager.block_size
        if most is None:
            most = sequence.keys.named(len(sequence.tokens) - sequence.outputs, size)
        target = led = first
        while led < most:
            key = manager.key(sequence, led)
            if manager.known.find(key) is None and self._items.find_block(self._store, key) is None:
                break
            led += 1
            if not self._items.kinds or self._items.find_states(self._store, key) is not None:
                target = led
        return target, led

    def _retarget(self, sequence: Sequence, reading: Reading, most: int) -> None:
        """Have a sequence begin behind fewer blocks, for what it needs for more is not there."""
        reading.target, _ = self._reach(sequence, reading.first, most)
        reading.at, reading.parts = reading.first, 0

    def _is_over(self, sequence: Sequence, reading: Reading) -> bool:
        """Whether nothing is left to be read; without states, what was read is known then."""
        if reading.target == reading.first:
            return True
        if reading.parts < len(self._items.kinds):
            return False
        reading.at = self._missing(sequence, reading, reading.at)
        if self._items.kinds and reading.at == reading.target:  # of those that were known, some may be so no more
            reading.at = self._missing(sequence, reading, reading.first)
        if not self._items.kinds:
            self._manager.take_in(sequence, reading.at, counted=reading.counted)
        return reading.at == reading.target

    def _take_in(self, sequence: Sequence, reading: Reading) -> None:
        """Let a sequence go on from states that were read, and their blocks be known."""
        if self._items.kinds and reading.target > reading.first:
            self._manager.take_in(sequence, reading.target, counted=reading.counted, slot=reading.slot)
            reading.slot = NO_SLOT
            self.tokens += (reading.target - reading.first) * self._manager.block_size if reading.counted else 0

    def _missing(self, sequence: Sequence, reading: Reading, at: int) -> int:
        """Return the first block, from one on, that was not read and is not known."""
        manager = self._manager
        while at < reading.target and (at in reading.read or manager.known.find(manager.key(sequence, at)) is not None):
            at += 1
        return at

    def _read_some(self, sequence: Sequence, reading: Reading, room: int) -> int:
        """Read a few items of about as many bytes as there is room; return how many bytes there were."""
        if reading.parts < len(self._items.kinds):
            return self._read_states(sequence, reading, room)
        return self._read_blocks(sequence, reading, room)

    def _read_states(self, sequence: Sequence, reading: Reading, room: int) -> int:
        if reading.slot == NO_SLOT:
            reading.slot = self._manager.states.lend()
            if reading.slot == NO_SLOT:  # others have all of them
                reading.target = reading.first
                return 0
        places = self._items.find_states(self._store, self._manager.key(sequence, reading.target - 1))
        if places is None:
            self._retarget(sequence, reading, reading.target - 1)
            return 0
        rest = list(zip(places, self._items.states, strict=True))[reading.parts :]
        count = _fitting([pool.nbytes for _, pool in rest], room)
        done = self._items.read(self._store, [(place, pool, reading.slot) for place, pool in rest[:count]])
        reading.parts += done
        if done < count:
            self._retarget(sequence, reading, reading.target - 1)
        return sum(pool.nbytes for _, pool in rest[:done])

    def _read_blocks(self, sequence: Sequence, reading: Reading, room: int) -> int:
        manager, items, at, wanted = self._manager, self._items, reading.at, list[Wanted]()
        most = reading.target - at
        for i in range(at, at + _fitting([items.block_bytes] * most, room)):
            key = manager.key(sequence, i)
            place = items.find_block(self._store, key)
            if place is None or i in reading.read or manager.known.find(key) is not None:
                break
            wanted.append((place, items.blocks, sequence.blocks[i]))
        done = items.read(self._store, wanted)
        reading.at += done
        if items.kinds:
            reading.read.update(range(at, at + done))
        else:
            manager.take_in(sequence, at + done, counted=reading.counted)
            self.tokens += done * manager.block_size if reading.counted else 0
        if done < max(1, len(wanted)):
            self._retarget(sequence, reading, at + done)
        return done * items.block_bytes


def _fitting(sizes: list[int], room: int) -> int:
    """Return how many items are read side by side: one at least, and more as far as there is room."""
    most, count, nbytes = min(room, max(TOGETHER, sum(sizes[:2]))), 1, sizes[0]
    while count < len(sizes) and nbytes + sizes[count] <= most:
        nbytes, count = nbytes + sizes[count], count + 1
    return count
