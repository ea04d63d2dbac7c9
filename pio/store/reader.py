"""Items read into memory and checked, by two threads side by side: half of that time is spent on checksums."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from pio.store.folder import SegmentFolder
from pio.store.segment import Segment, SegmentError, Stored, checksum
from pio.thread_log import ThreadLog
from pio.threads import start

_log = ThreadLog("pio.store")


class Place(NamedTuple):
    """Where an item lies."""

    segment: Segment
    stored: Stored


Wanted: TypeAlias = tuple[Place, Sequence[memoryview]]  # an item, and the memory for its pieces
Outcome: TypeAlias = OSError | SegmentError | None  # why it could not be read


class SegmentReader:
    """Reads items of segments for one thread; the other thread starts when there is more than one item to read."""

    def __init__(self, folder: SegmentFolder) -> None:
        self._folder = folder
        self._work: queue.SimpleQueue[Sequence[Wanted] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[list[Outcome] | Exception] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._alone = False

    def read(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        """Read items, and return for each of them what was wrong, if anything; their memory is overwritten anyway."""
        half = len(wanted) // 2 if len(wanted) > 1 and self._helped() else 0
        if half:
            self._work.put(wanted[len(wanted) - half :])
        rest: list[Outcome] | Exception = []
        try:
            found = [self._read(*each) for each in wanted[: len(wanted) - half]]
        finally:
            if half:  # whatever happens here: until then the other thread writes to that memory
                rest = self._done.get()
        if isinstance(rest, Exception):
            raise rest
        return found + rest

    def close(self) -> None:
        """End the other thread, which has nothing to do."""
        self._alone = True
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _helped(self) -> bool:
        """Whether there is another thread."""
        if self._thread is None and not self._alone:
            thread = threading.Thread(target=self._run, name="pio-store-reader", daemon=True)
            try:
                start(thread)
                self._thread = thread
            except RuntimeError as error:
                self._alone = True
                _log.info("one thread reads %s, for the system refuses another: %s", self._folder.path, error)
        return self._thread is not None

    def _run(self) -> None:
        while (wanted := self._work.get()) is not None:
            try:
                self._done.put([self._read(*each) for each in wanted])
            except Exception as error:  # somebody waits for it
                self._done.put(error.with_traceback(None))
            wanted = ()  # views keep the memory of a cache

    def _read(self, place: Place, targets: Sequence[memoryview]) -> Outcome:
        segment, (item, begin, nbytes, expected) = place
        try:
            if sum(map(len, targets)) != nbytes:
                raise SegmentError("it is of a cache of another type")
            if self._folder.read(segment.name, begin, targets) < nbytes:
                raise SegmentError("it was cut short")
            if checksum(self._folder.root, item, targets) != expected:
                raise SegmentError("its data are damaged")
        except (OSError, SegmentError) as error:
            return error.with_traceback(None)
        return None
