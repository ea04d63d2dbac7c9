"""Turns: what is too large for a GPU lies here, and comes into few buffers there one after the other, just in time.

While the stream works on what is in one buffer, the next comes into another on a stream of its own. Events of the
driver keep the order, so that nobody in Python waits: a copy begins when the work is done that was asked for on what is
in its buffer, and work on what it brings begins when it is complete.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable, Sequence

from pio.cuda.pinned import Pinned, Work


class Turns:
    """Items of memory that take turns, in their order and then from the front again; others may be asked for too.

    Attributes:
        sizes: Bytes of each item.
    """

    def __init__(self, stream: Work, buffers: Sequence[int], sizes: Sequence[int]) -> None:
        """Make it without contents.

        Args:
            stream: Whose work is done on items.
            buffers: Addresses of the GPU's memory, each with room for every item that comes there: for the item i this
                is the one of number i modulo their number.
            sizes: Bytes of each item.
        """
        self.sizes = tuple(sizes)
        self._stream, self._buffers = stream, tuple(buffers)
        self._copies = stream.gpu.enter().stream()
        self._images: dict[int, Pinned] = {}
        self._there: list[int | None] = [None] * len(buffers)  # which item each buffer has, or is to get
        self._events = [0] * len(buffers)  # behind the last copy into each, where there was one
        release = _releasing(stream, self._copies, self._events)
        self._finalizer = weakref.finalize(self, stream.drop_later, release)
        self._finalizer.atexit = False

    def image(self, item: int) -> int:
        """Return the address of an item's memory here, which is to be filled before the item is first entered.

        Raises:
            OutOfMemoryError: The system refuses it.
        """
        found = self._images.get(item)
        if found is None:
            found = self._images[item] = Pinned(self._stream, self.sizes[item], "weights that do not fit on the GPU")
        return found.address

    def enter(self, item: int) -> None:
        """Let what is asked of the stream from here on find the item in its buffer."""
        buffer = item % len(self._buffers)
        if self._there[buffer] != item:  # none has left it here, such as in the first step or behind one that failed
            self._bring(item)
        self._stream.begin().wait_event(self._stream.handle, self._events[buffer])

    def leave(self, item: int, left_out: Container[int] = ()) -> None:
        """Say that nothing more is asked for on the item: the next one of its buffer comes behind what was.

        Args:
            item: Which one.
            left_out: Items that are not entered next.
        """
        step = len(self._buffers)
        those = [*range(item + step, len(self.sizes), step), *range(item % step, item, step)]
        following = next((each for each in those if each not in left_out), None)
        if following is not None:
            self._bring(following)

    def bring_parts(self, item: int, parts: Iterable[tuple[int, int]]) -> None:
        """Let what is asked of the stream from here on find parts of the item in its buffer, and maybe not the rest.

        They come in the stream's own order, for nobody knew before that they are needed.

        Args:
            item: Which one.
            parts: Where each begins in it, and its bytes.
        """
        driver, buffer, image = self._stream.begin(), item % len(self._buffers), self.image(item)
        if self._events[buffer]:
            driver.wait_event(self._stream.handle, self._events[buffer])
        if self._there[buffer] == item:
            return
        self._there[buffer] = None
        for at, nbytes in parts:
            driver.copy_in(self._buffers[buffer] + at, image + at, nbytes, self._stream.handle)

    def _bring(self, item: int) -> None:
        driver, buffer = self._stream.begin(), item % len(self._buffers)
        address = self.image(item)
        self._there[buffer] = None  # what is true if anything below fails
        used = driver.event(self._stream.handle)
        try:
            driver.wait_event(self._copies, used)
        finally:
            driver.end_event(used)
        driver.copy_in(self._buffers[buffer], address, self.sizes[item], self._copies)
        before, self._events[buffer] = self._events[buffer], driver.event(self._copies)
        if before:
            driver.end_event(before)
        self._there[buffer] = item

    def close(self) -> None:
        """Give back all but the buffers, behind what was asked for; they may be freed from here on."""
        self._finalizer()
        self._images.clear()  # behind the line above: copies from there are done when these are given back


def _releasing(stream: Work, copies: int, events: list[int]) -> Callable[[], None]:
    """Return what gives a stream of copies back with its events; no method, so that it holds no ``Turns``."""

    def release() -> None:
        driver = stream.gpu.enter()
        driver.wait(copies)
        for event in filter(None, events):
            driver.end_event(event)
        driver.end_stream(copies)

    return release
