"""Items on disk by their keys: found, read and checked, and new ones put together to segments."""

from __future__ import annotations

import errno
import os
import queue
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final

from pio.device import Device
from pio.errors import ConfigError
from pio.memory.budget import MemoryBudget
from pio.memory.outgoing import NoOutgoing, outgoing_bytes
from pio.memory.sizes import format_bytes
from pio.store.folder import SegmentFolder
from pio.store.reader import Place, SegmentReader, Wanted
from pio.store.segment import Segment, SegmentError
from pio.store.segment_buffer import SegmentBuffer
from pio.store.writer import SegmentWriter
from pio.thread_log import ThreadLog

SEGMENT: Final = 8 << 20  # bytes of data, or those of one item where that is larger
BUFFERS: Final = 2  # one is written while the other is filled; of larger ones, which take long to write, one is enough
LOOK: Final = 1.0  # seconds between two times that the folder is listed, which takes long where it is full
PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})  # errors that say nothing of a file

_log = ThreadLog("pio.store")


def buffer_bytes(largest: int) -> int:
    """Return the bytes of a store's buffers, whose largest piece that is written at once has so many."""
    return BUFFERS * SEGMENT if largest <= SEGMENT else largest


class DiskStore:
    """What one thread finds, reads and fills, and another one writes.

    All but the numbers is the first one's alone to change; the other one looks up segments.

    Other processes may add and remove segments at any time: what they add is found when the folder has changed, and
    what they remove is found no more, at the latest when it is read.

    Attributes:
        nbytes: Bytes of the buffers, on a GPU of those there too.
        segment_bytes: Bytes that a segment should have, unless one thing alone needs more.
    """

    def __init__(
        self,
        path: Path,
        root: bytes,
        limit: int,
        largest: int,
        *,
        ways: bool = False,
        budget: MemoryBudget | None = None,
        device: Device | None = None,
    ) -> None:
        """Look through a folder.

        Args:
            path: The folder, see ``pio.store.folder.prepare``.
            root: What decides everything in an item beside its key, as a digest.
            limit: Bytes that segments of all roots may take there.
            largest: Bytes of the largest item, or of those that are of use only together.
            ways: Whether items are of use only as the way to others that stand beside one.
            budget: Counts the buffers.
            device: Where items lie before they are written; the CPU if None.

        Raises:
            ConfigError: The limit leaves no room for a segment, or the folder is gone.
            OutOfMemoryError: The budget has no room for the buffers.
        """
        segment, self.segment_bytes = max(SEGMENT, largest), SEGMENT
        if limit < segment + (1 << 16):
            raise ConfigError(
                f"prefix_cache_disk={limit} is too small: this model's cache is written in pieces of "
                f"{format_bytes(segment)}; give at least {format_bytes(2 * segment)}"
            )
        self._folder = SegmentFolder(path, root)
        self._index: dict[tuple[str, bytes], Place] = {}
        self._segments: dict[str, Segment] = {}
        self._reader = SegmentReader(self._folder)
        self._refused: set[str] = set()  # segments that could not be read
        self._pending: set[tuple[str, bytes]] = set()  # items that are being written
        self._writer = SegmentWriter(self._folder, limit, self._segments, ways=ways)
        buffers = buffer_bytes(largest) // segment if self._folder.writable else 0
        self._free = list[SegmentBuffer]()
        try:
            self._free.extend(SegmentBuffer(segment, budget, device) for _ in range(buffers))
        except NoOutgoing as error:
            self._free.clear()
            refused = str(error)  # no more of it: its frames hold buffers
            _log.warning("what is in %s is found, and nothing is added: %s", path, refused)
        self._writing = bool(self._free)
        on_gpu = device is not None and device.stream is not None
        self.nbytes = outgoing_bytes(len(self._free) * segment, on_gpu=on_gpu)
        self._seen, self._next_look = -1, -inf
        try:
            self._look()
            if self._writing:
                self._writer.make_room()
                self._look()
            else:
                if not self._folder.writable:
                    _log.warning("%s cannot be written: what is there is found, and nothing is added", path)
                self._writer.count()
        except OSError as error:
            raise ConfigError(f"prefix_cache_path={str(path)!r} cannot be used: {error.strerror or error}") from error

    @property
    def wake(self) -> Callable[[], object]:
        """Called by the thread that writes, when a buffer may be filled again."""
        return self._writer.wake

    @wake.setter
    def wake(self, wake: Callable[[], object]) -> None:
        self._writer.wake = wake

    @property
    def num_segments(self) -> int:
        """Segments in the folder."""
        return self._writer.num_segments

    @property
    def disk_bytes(self) -> int:
        """Bytes of them."""
        return self._writer.nbytes

    @property
    def failures(self) -> int:
        """Segments that could not be written."""
        return self._writer.failures

    @property
    def keeps(self) -> bool:
        """Whether anything more is written."""
        return self._writing and not self._writer.failures

    def stop(self) -> None:
        """Take nothing more; what was taken is written."""
        self._writing = False

    def look(self) -> None:
        """Take in what was added to the folder, by other processes too, and let go of what was removed.

        What this store has written is known as soon as it is there; for others the folder is listed, not more often
        than ``LOOK`` says.
        """
        self._collect()
        now = monotonic()
        if now >= self._next_look and self._look():
            self._next_look = now + LOOK

    def _look(self) -> bool:
        """Compare the folder with what is known, if it has changed; return whether it had to be listed."""
        try:
            changed = self._folder.changed()
            if changed == self._seen:
                return False
            names = self._folder.names()
        except OSError as error:
            _log.debug("%s cannot be looked at: %s", self._folder.path, error)
            return False
        self._seen = changed
        for name in [name for name in self._segments if name not in names]:
            self._forget(self._segments[name])
        for name in sorted(names - self._segments.keys() - self._refused):
            try:
                self._learn(Segment(name, self._folder.items(name)))
            except FileNotFoundError:  # removed meanwhile
                continue
            except (OSError, SegmentError) as error:
                if isinstance(error, OSError) and error.errno in PASSING:
                    self._seen = -1  # it is looked at once more
                else:
                    self._refuse(name, error)
        return True

    def find(self, kind: str, key: bytes) -> Place | None:
        """Return where an item lies, as far as is known."""
        return self._index.get((kind, key))

    def expects(self, kind: str, key: bytes) -> bool:
        """Return whether an item is there, or is just being written."""
        return (kind, key) in self._index or (kind, key) in self._pending

    def read(self, wanted: Sequence[Wanted]) -> int:
        """Read items into memory, side by side.

        Args:
            wanted: What ``find`` has returned, each with memory for its pieces as they were when it was added. The
                memory is overwritten in any case.

        Returns:
            How many of them, from the first on, are there and whole.
        """
        outcomes = self._reader.read(wanted)
        for (place, _), outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, OSError) and outcome.errno in PASSING:
                continue
            if outcome is not None and self._segments.get(place.segment.name) is place.segment:
                self._forget(place.segment)
                if not isinstance(outcome, FileNotFoundError):  # another process has removed it
                    self._refuse(place.segment.name, outcome)
        return next((i for i, outcome in enumerate(outcomes) if outcome is not None), len(outcomes))

    def note_use(self, place: Place) -> None:
        """Note that an item was used, or the one that it was read to."""
        self._writer.note_use(place.segment)

    def age(self, place: Place) -> None:
        """Note that an item need not stay where room is needed; that counts where nothing else is in its segment."""
        if all(stored.item.key == place.stored.item.key for stored in place.segment.items):
            self._writer.age(place.segment)

    def take_buffer(self) -> SegmentBuffer | None:
        """Return an empty buffer to be filled; None while all are being written, or where nothing more is."""
        self._collect()
        return self._free.pop() if self._free and self.keeps else None

    def put_buffer(self, buffer: SegmentBuffer, *, closing: bool = False) -> None:
        """Have what a buffer holds written; an empty one is only given back.

        Args:
            buffer: What ``take_buffer`` has returned.
            closing: Whether this may be the end of the interpreter, which starts no thread any more.

        Raises:
            DeviceError: It cannot be read any more, and is given back.
        """
        if not len(buffer):
            self._free.append(buffer)
            return
        try:
            buffer.bring()
        except BaseException:
            buffer.clear()
            self._free.append(buffer)
            raise
        self._pending.update(buffer.names)
        try:
            self._writer.write(buffer, closing=closing)
        except RuntimeError as error:
            self._writing = False
            _log.warning("nothing more is kept in %s, for the system refuses a thread: %s", self._folder.path, error)

    def wait(self, seconds: float) -> bool:
        """Wait until a buffer is written, at most so long; return whether one was."""
        try:
            report = self._writer.reports.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return False
        self._pending.difference_update(report.names)
        self._free.append(report.buffer)
        for segment in [segment for name in report.removed if (segment := self._segments.get(name)) is not None]:
            self._forget(segment)
        if report.segment is not None:
            self._learn(report.segment)
        return True

    def close(self, seconds: float) -> None:
        """Write what was put, as far as that can be done in so many seconds, and write nothing more."""
        self._writing = False
        self._reader.close()
        self._writer.close(seconds)
        self._collect()
        self._free.clear()

    def _collect(self) -> None:
        while not self._writer.reports.empty():
            self.wait(0)

    def _learn(self, segment: Segment) -> None:
        self._segments[segment.name] = segment
        for stored in segment.items:
            self._index[stored.item.kind, stored.item.key] = Place(segment, stored)

    def _forget(self, segment: Segment) -> None:
        self._segments.pop(segment.name, None)
        for stored in segment.items:
            place = self._index.get((stored.item.kind, stored.item.key))
            if place is not None and place.segment is segment:
                del self._index[stored.item.kind, stored.item.key]

    def _refuse(self, name: str, error: OSError | SegmentError) -> None:
        """Say once that a segment cannot be used; a damaged one is removed."""
        self._refused.add(name)
        path = os.path.join(self._folder.path, name)
        if isinstance(error, OSError):
            _log.warning("%s cannot be read, and what it holds is computed again: %s", path, error.strerror or error)
            return
        self._folder.discard(name)
        _log.warning("%s is not used and was removed, what it held is computed again: %s", path, error)
