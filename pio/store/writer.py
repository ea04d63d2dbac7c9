"""The thread that writes segments: it makes room for each, and says when it is done."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pio.errors import DeviceError
from pio.store.eviction import Eviction
from pio.store.folder import SegmentFolder
from pio.store.segment import Segment
from pio.store.segment_buffer import SegmentBuffer
from pio.system import HERE
from pio.thread_log import ThreadLog
from pio.threads import start

AGED: Final = 365 * 24 * 3600 * 10**9  # nanoseconds by which what need not stay seems older
MAX_SEGMENTS: Final = 1 << 14  # whatever their size: a folder is listed whenever one is written

UNREADABLE: Final = "what was computed of prompts is not kept on disk, for it cannot be read: %s"

_log = ThreadLog("pio.store")


class Report(NamedTuple):
    """What came of a buffer that was to be written.

    Attributes:
        buffer: It may be filled again.
        names: Kinds and keys of the items that it had.
        segment: What they became; None where it could not be written, or there is no room for it.
        removed: Names of the segments that had to make room.
    """

    buffer: SegmentBuffer
    names: list[tuple[str, bytes]]
    segment: Segment | None
    removed: list[str]


class SegmentWriter:
    """Writes segments in a thread of its own, which starts with the first one.

    Attributes:
        reports: What was written, for whoever reads segments.
        wake: Called, by whoever writes, when there is a report.
        failures: Segments that could not be written; behind the first of them nothing is.
        num_segments: Segments in the folder, those of other models too, as of the last one that was written.
        nbytes: Bytes of them.
    """

    def __init__(
        self, folder: SegmentFolder, limit: int, segments: Mapping[str, Segment], *, ways: bool = False
    ) -> None:
        """Write nothing yet.

        Args:
            folder: Where to.
            limit: Bytes that all segments of the folder may take.
            segments: What is known of those in it, by name; others change it.
            ways: Whether items are of use only as the way to others that stand beside one.
        """
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.wake: Callable[[], object] = lambda: None
        self.failures = self.num_segments = self.nbytes = 0
        self._folder, self._limit, self._segments, self._ways = folder, limit, segments, ways
        self._used: dict[str, int] = {}  # when segments were used of which the folder does not know it yet
        self._work: queue.SimpleQueue[SegmentBuffer | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def note_use(self, segment: Segment) -> None:
        """Have the folder know, some time, that a segment was used now."""
        self._used[segment.name] = time.time_ns()

    def age(self, segment: Segment) -> None:
        """Have the folder know, some time, that a segment goes before others; among such it is as if it were used."""
        self._used[segment.name] = time.time_ns() - AGED

    def write(self, buffer: SegmentBuffer, *, closing: bool = False) -> None:
        """Have what a buffer holds written.

        Args:
            buffer: It has an item at least.
            closing: Where there is no thread yet, write in this one.

        Raises:
            RuntimeError: The system refuses a thread.
        """
        if self._thread is None and closing:
            self._finish(buffer)
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="pio-store", daemon=True)
            start(thread)
            self._thread = thread
        self._work.put(buffer)

    def close(self, seconds: float) -> None:
        """End the thread when what it was given is written; wait for that at most so long."""
        thread, self._thread = self._thread, None
        if thread is None:
            self._note_uses()
        else:
            self._work.put(None)
            thread.join(seconds)

    def count(self) -> None:
        """Count what is in the folder.

        Raises:
            OSError: The folder is gone.
        """
        listed = self._folder.listed()
        self.num_segments, self.nbytes = len(listed), sum(entry.nbytes for entry in listed)

    def make_room(self) -> None:
        """Count what is in the folder, and remove what is beyond the limit.

        Raises:
            OSError: The folder is gone.
        """
        self._make_room(None, 0, [])

    def _make_room(self, segment: Segment | None, nbytes: int, removed: list[str]) -> bool:
        """Remove segments, see ``Eviction``, until one more fits under the limit.

        Args:
            segment: The one that is to be added; what it continues stays.
            nbytes: Bytes of it.
            removed: Gains the names of those that go.

        Returns:
            Whether it fits; else it continues a chain that takes all the room there is.

        Raises:
            OSError: The folder is gone.
        """
        found = Eviction(self._folder.listed(), self._segments, segment, ways=self._ways, now=time.time())
        stay = 0  # that the system does not let go, as Windows does where somebody reads them: they still count
        while found.nbytes + nbytes > self._limit or len(found.left) + stay >= MAX_SEGMENTS:
            victim = found.next()
            if victim is None:
                break
            gone = self._folder.discard(victim.name)
            found.remove(victim, stays=not gone)
            stay += not gone
            if gone:
                removed.append(victim.name)
        self.num_segments, self.nbytes = len(found.left) + stay, found.nbytes
        return found.nbytes + nbytes <= self._limit

    def _run(self) -> None:
        while (buffer := self._work.get()) is not None:
            self._finish(buffer)
        self._note_uses()

    def _finish(self, buffer: SegmentBuffer) -> None:
        """Write what a buffer holds, and report of it."""
        segment, names, removed = None, buffer.names, list[str]()
        try:
            buffer.wait()  # in any case: it may be filled again behind this
            segment = self._write(buffer, removed) if not self.failures else None
        except Exception as error:
            self.failures += 1
            _say(self._folder, error)
        buffer.clear()
        self.reports.put(Report(buffer, names, segment, removed))
        self.wake()

    def _write(self, buffer: SegmentBuffer, removed: list[str]) -> Segment | None:
        header, data, stored = buffer.finished(self._folder.root)
        segment, nbytes = Segment(self._folder.new_name(), stored), len(header) + len(data)
        self._note_uses()
        if not self._make_room(segment, nbytes, removed):
            return None
        self._folder.write(segment.name, header, data)
        self._make_room(None, 0, removed)  # others have seen the same room, and maybe taken it meanwhile
        return None if segment.name in removed else segment

    def _note_uses(self) -> None:
        while self._used:
            name, when = self._used.popitem()
            self._folder.note_use(name, when)


def _say(folder: SegmentFolder, error: Exception) -> None:
    """Log why nothing more is written."""
    if isinstance(error, DeviceError):  # with its memory all is gone that could be
        _log.warning(UNREADABLE, error)
        return
    remedy = "free space there, or give another prefix_cache_path"
    cause: object = error
    if isinstance(error, OSError):
        cause = error.strerror or error
        remedy = HERE.file_problem(folder.path, error, writing=True) or remedy
    _log.warning("nothing more is kept in %s, what is there is still found: %s; %s", folder.path, cause, remedy)
