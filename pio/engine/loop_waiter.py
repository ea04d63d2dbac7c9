"""A coroutine that waits: it is woken in its own event loop, whoever wakes it."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable


class LoopWaiter:
    """What stands among waiting threads for a coroutine: no thread waits for it.

    Attributes:
        future: Done once it is woken.
    """

    __slots__ = ("_abandon", "_loop", "future")

    def __init__(self, loop: AbstractEventLoop, abandon: Callable[[], object]) -> None:
        """Wait in a loop; ``abandon`` is called where that was closed before, so that nobody can be woken any more."""
        self.future: Future[None] = loop.create_future()
        self._loop = loop
        self._abandon = abandon

    def release(self) -> None:
        """Wake the coroutine; from any thread, a signal handler or a finaliser."""
        try:
            self._loop.call_soon_threadsafe(self.wake)
        except RuntimeError:  # the loop is closed
            self._abandon()

    def look(self) -> None:
        """Abandon what is waited for, where the loop is closed."""
        if self._loop.is_closed():
            self._abandon()

    def wake(self) -> None:
        """Wake the coroutine; in its own loop."""
        if not self.future.done():  # its task may have been cancelled meanwhile
            self.future.set_result(None)
