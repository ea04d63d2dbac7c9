"""Write-back: what leaves a GPU's memory for good, without anybody waiting but who reads it here.

Bytes are gathered there first, in the stream's own order, so that what they came from may be written over by whatever
is asked for next. From there they come to pinned memory by one copy, on a stream of its own, beside the work of the
next steps. Events of the driver keep the order; the one behind the copy is what a reader waits for.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pio.cuda.pinned import Pinned, Work

WHAT: Final = "what goes from a GPU to disk"


class Source(Work, Protocol):
    """A stream, with the memory of its GPU."""

    def allocate(self, nbytes: int, what: str) -> int:
        """Return the address of memory there."""
        ...

    def drop(self, address: int) -> None:
        """Give it back, at the next call; from any thread at any moment."""
        ...


class WriteBack:
    """One buffer that is gathered and brought over and over; one thread gathers, and another may wait.

    Attributes:
        view: Its bytes here: what was gathered and brought, once ``wait`` has returned.
    """

    def __init__(self, stream: Source, nbytes: int) -> None:
        """Take memory here and there.

        Args:
            stream: In whose order it is gathered.
            nbytes: How much.

        Raises:
            OutOfMemoryError: The system or the GPU refuses it.
        """
        self._stream, self._copies = stream, stream.gpu.enter().stream()
        self._memory, self._events = list[int](), list[int]()  # there; behind the last copy, where nobody has waited
        release = _releasing(stream, self._copies, self._memory, self._events)
        self._finalizer = weakref.finalize(self, stream.drop_later, release)
        self._finalizer.atexit = False
        self._memory.append(stream.allocate(nbytes, WHAT))
        self._here = Pinned(stream, nbytes, WHAT)
        self.view = memoryview((ctypes.c_ubyte * nbytes).from_address(self._here.address)).cast("B")

    def gather(self, pieces: Sequence[tuple[int, int, int]]) -> None:
        """Collect bytes of the GPU, as all that was asked for by now leaves them; they may change behind that.

        Args:
            pieces: Of each where it is to begin in the buffer, its address and its bytes. None overlaps another.
        """
        driver = self._stream.begin()
        if self._events:  # nobody has waited for what was here before: it is copied first
            driver.wait_event(self._stream.handle, self._events[-1])
        (to,) = self._memory
        wanted = [(to + at, address, nbytes) for at, address, nbytes in pieces if nbytes]
        if wanted:
            driver.copy_all(wanted, self._stream.handle)

    def bring(self, nbytes: int) -> None:
        """Let the first bytes come here; nothing more is gathered before ``wait``."""
        driver, (there,) = self._stream.begin(), self._memory
        gathered = driver.event(self._stream.handle)
        try:
            driver.wait_event(self._copies, gathered)
        finally:
            driver.end_event(gathered)
        driver.copy_out(self._here.address, there, nbytes, self._copies)
        self._events.append(driver.event(self._copies, sleeps=True))

    def wait(self) -> None:
        """Wait until what was brought is here, if anything; in any thread.

        Raises:
            DeviceError: It will never be.
        """
        while self._events:
            driver = self._stream.gpu.enter()
            driver.await_event(self._events[0])
            driver.end_event(self._events.pop(0))


def _releasing(stream: Source, copies: int, memory: list[int], events: list[int]) -> Callable[[], None]:
    """Return what gives all back but the memory here, which goes behind it; no method, so that it holds no buffer."""

    def release() -> None:
        driver = stream.gpu.enter()
        driver.wait(copies)
        while events:
            driver.end_event(events.pop())
        driver.end_stream(copies)
        while memory:
            stream.drop(memory.pop())

    return release
