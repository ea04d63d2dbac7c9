"""What of prompts and answers is going to be written to disk, in the order in which it is given back."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import Final

from pio.cache.kept_states import KeptState
from pio.engine.cache_manager import CacheManager
from pio.engine.sequence import Sequence
from pio.engine.stored_items import BLOCK, STATES, StoredItems
from pio.errors import DeviceError
from pio.store.disk_store import DiskStore
from pio.store.reader import Place
from pio.store.segment import Item
from pio.store.segment_buffer import SegmentBuffer
from pio.store.writer import UNREADABLE
from pio.thread_log import ThreadLog

_log = ThreadLog("pio.engine")

TOKEN: Final = 1 << 17  # bytes of disk that a token is worth which need not be computed again
DELAY: Final = 1.0  # seconds that less than a segment waits for more where nothing runs: short answers share one


class PrefixWrites:
    """Blocks and states that are known, and not on disk, of sequences that gave them back.

    A chain of blocks is written from its beginning, states behind the block that they stand behind, so that a process
    that dies in between leaves what can be used. They are copied as soon as nothing runs, or there is enough for a
    segment, or others need the room of one of them; what these need while all buffers are being written is lost.

    States are as large as thousands of tokens, so not all that are kept in memory are written: the last ones on the
    way, the end of a prompt, the end of the first message, and those from which several ways go on; of these, each that
    saves enough tokens for its bytes, see ``TOKEN``, behind the one before it. Others on the way save little once a
    longer one is there: what of them is on disk goes first where room is needed. Blocks behind the last states are not
    written, for nobody could go on from them.
    """

    def __init__(self, items: StoredItems, store: DiskStore, manager: CacheManager, limit: int) -> None:
        """Write nothing yet.

        Args:
            items: What there is.
            store: Where to.
            manager: Who holds what.
            limit: Bytes that may be there.
        """
        self._items, self._store, self._manager = items, store, manager
        self._longest = max(0, limit - items.state_bytes) // items.block_bytes
        self._segment = max(store.segment_bytes, items.block_bytes)  # where one thing alone needs no more
        self._full = self._segment - items.block_bytes  # bytes beyond which a segment has no room for another block
        self._least = items.state_bytes / TOKEN / manager.block_size  # blocks from states to states
        self._most = manager.num_blocks + manager.states.most  # that can be there at once
        self._queue: dict[tuple[str, bytes], bytes | None] = {}  # what, and the key of the block before it
        self._nbytes = 0  # of what is in it
        self._open: SegmentBuffer | None = None  # it was copied to this one, which has room for more
        self._inside = set[tuple[str, bytes]]()  # what that one holds
        self._held = 0  # bytes of it
        self._due = inf  # when that one is to be written, though it is no whole segment
        self._blocked = False  # all buffers are being written

    def __bool__(self) -> bool:
        """Whether there is anything to be written."""
        return bool(self._queue)

    def clear(self) -> None:
        """Forget what is not being written yet."""
        self._queue.clear()
        self._nbytes = 0
        if self._open is not None:
            self._open.clear()
            self._put()

    def rest(self) -> float | None:
        """Return for how many seconds there is nothing to do where nothing runs; None until something comes."""
        if self._open is None or self._blocked:  # a store that has a buffer again wakes who waits
            return None
        return max(0.0, self._due - monotonic())

    def offer(self, sequence: Sequence) -> None:
        """Note what of a sequence was used, and what is to be written."""
        if not self._store.keeps:
            return
        chain = sequence.keys.first(min(sequence.keys.known, self._longest))
        wanted = set[bytes]()
        if self._items.kinds:
            wanted, led = self._worth_writing(sequence, chain)
            chain = chain[:led]
        before: bytes | None = None
        for key in chain:
            place = self._items.find_block(self._store, key)
            if place is not None:
                self._store.note_use(place)
            elif not self._is_there(BLOCK, key):
                self._add(BLOCK, key, before)
            before = key
            if key in wanted and not self._is_there(STATES, key):
                self._add(STATES, key, key)
        if len(self._queue) > self._most:
            self._forget_lost()

    def write(self, *, idle: bool, end: float = inf) -> None:
        """Hand over what is to be written, as far as there are buffers for it.

        Args:
            idle: Whether nothing runs. Else only whole segments are copied; then all is, and what is no whole segment
                waits for more, for ``DELAY``, in memory that nobody else needs.
            end: Of the time for it, by ``time.monotonic``, where the model is closed: then nothing waits, and no thread
                is started.
        """
        closing = end < inf
        try:
            if self._copy(everything=idle or closing, end=end) and self._open is not None:
                self._due = min(self._due, monotonic() + DELAY)
                if closing or self._held > self._full or (idle and monotonic() >= self._due):
                    self._put(closing=closing)
        except DeviceError as error:
            self._give_up(error)

    def lose(self, key: bytes) -> None:
        """Copy what is queued, as far as there are buffers, if what others need the room of now is of it.

        Args:
            key: Of a block, or of the states behind one, which are there as long as this runs.
        """
        if (BLOCK, key) in self._queue or (STATES, key) in self._queue:
            try:
                self._copy(everything=True)
            except DeviceError as error:
                self._give_up(error)

    def _copy(self, *, everything: bool, end: float = inf) -> bool:
        """Copy what is queued, or of that whole segments; return whether there were buffers and time for it.

        Raises:
            DeviceError: It lies on a GPU that was lost.
        """
        self._blocked = False
        while self._queue and (everything or self._nbytes + self._held > self._full):
            if end < inf and monotonic() >= end:
                return False
            if self._open is None:
                self._open = self._store.take_buffer()
            if self._open is None:
                if not self._store.keeps:
                    self.clear()
                self._blocked = True
                return False
            self._fill(self._open)
            if self._queue or not len(self._open):  # it has no room for the next, or all that there was is lost
                self._put(closing=end < inf)
        return True

    def _give_up(self, error: DeviceError) -> None:
        """Forget what is queued: its memory is gone, and with it all that could be written."""
        _log.warning(UNREADABLE, error)
        self.clear()

    def _worth_writing(self, sequence: Sequence, chain: tuple[bytes, ...]) -> tuple[set[bytes], int]:
        """Return behind which blocks states are to be written, and how many lead to the last that will be there."""
        way = list[tuple[KeptState, Place | None]]()  # from its end to its beginning
        state = self._manager.states.kept.last(chain)
        while state is not None:
            places = self._items.find_states(self._store, state.chain[-1])
            way.append((state, None if places is None else places[0]))
            state = state.parent
        end = sequence.keys.named(sequence.prompt_length - 1, self._manager.block_size)
        latest = next((len(state.chain) for state, place in way if place is not None), 0)
        wanted, led = set[bytes](), 0
        for state, place in reversed(way):
            length = len(state.chain)
            likely = state is way[0][0] or length == end or not state.on_the_way
            if place is not None:
                if likely or length == latest:
                    self._store.note_use(place)
                else:
                    self._store.age(place)
                led = length
            elif likely and length - led >= self._least:
                wanted.add(state.chain[-1])
                led = length
        return wanted, led

    def _put(self, *, closing: bool = False) -> None:
        """Have what was copied written."""
        buffer, self._open = self._open, None
        self._inside.clear()
        self._held, self._due = 0, inf
        if buffer is not None:
            self._store.put_buffer(buffer, closing=closing)

    def _add(self, what: str, key: bytes, before: bytes | None) -> None:
        if (what, key) not in self._queue and (what, key) not in self._inside:
            self._queue[what, key] = before
            self._nbytes += self._size(what)

    def _pop(self, what: str, key: bytes) -> None:
        del self._queue[what, key]
        self._nbytes -= self._size(what)

    def _kinds(self, what: str) -> list[str]:
        """Return the kinds of items that something is."""
        return [BLOCK] if what == BLOCK else self._items.kinds

    def _is_there(self, what: str, key: bytes) -> bool:
        """Whether all of it is on disk, or on its way."""
        return all(self._store.expects(kind, key) for kind in self._kinds(what))

    def _size(self, what: str) -> int:
        return self._items.block_bytes if what == BLOCK else self._items.state_bytes

    def _forget_lost(self) -> None:
        """Forget what others have needed the room of."""
        for what, key in [each for each in self._queue if self._find(*each) is None]:
            self._pop(what, key)

    def _find(self, what: str, key: bytes) -> int | None:
        """Return the block or the slot in which something lies that is to be written; None where it is lost."""
        if what == BLOCK:
            return self._manager.known.find(key)
        state = self._manager.states.kept.get(key)
        return None if state is None else state.slot

    def _fill(self, buffer: SegmentBuffer) -> None:
        """Copy into a buffer what is still there, where the block before it is on disk or on its way.

        Raises:
            DeviceError: It lies on a GPU that was lost; the buffer is to be cleared.
        """
        self._add_to(buffer)
        buffer.gather()

    def _add_to(self, buffer: SegmentBuffer) -> None:
        items = self._items
        while self._queue:
            (what, key), before = next(iter(self._queue.items()))
            kinds, found = self._kinds(what), self._find(what, key)
            reached = before is None or (BLOCK, before) in self._inside or self._is_there(BLOCK, before)
            if found is not None and reached and not self._is_there(what, key):
                beside = not len(buffer) or self._held + self._size(what) <= self._segment
                if not beside or not buffer.has_room(self._size(what), len(kinds)):
                    return
                for kind, pool in zip(kinds, [items.blocks] if what == BLOCK else items.states, strict=True):
                    buffer.add(Item(kind, key, before), pool.pieces(found))
                self._inside.add((what, key))
                self._held += self._size(what)
            self._pop(what, key)
