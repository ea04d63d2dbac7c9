"""Threads and coroutines that wait for a change, and how they are woken: without any lock that could be held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pio.errors import ConfigError

LOOK = 0.5  # seconds until a wait looks again whether what it waits for can still come


class Waiters:
    """Wakes all who wait, from any thread, from a signal handler and from a finaliser, whatever these interrupt.

    Each thread that waits has a lock of its own that nobody else takes, each coroutine a ``LoopWaiter``, and putting
    these into a dict and taking them out are atomic. So whoever wakes never waits himself, and finds nothing half done
    where he has interrupted a wait or another waker.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Any, None] = {}

    def wake(self) -> None:
        """Let all who wait look again. What they look at must have changed before."""
        while self._waiting:
            try:
                lock, _ = self._waiting.popitem()
            except KeyError:  # another waker was faster
                return
            lock.release()

    def look(self) -> None:
        """Let coroutines whose event loop was closed abandon what they wait for: nothing else would tell them."""
        for waiter in list(self._waiting):
            look = getattr(waiter, "look", None)  # threads' locks have none
            if look is not None:
                look()

    async def wait_in_loop(
        self, ready: Callable[[], bool], check: Callable[[], object], abandon: Callable[[], object]
    ) -> None:
        """Wait in the running event loop until ``ready()``; no thread waits meanwhile.

        Args:
            ready: Whether the wait is over.
            check: Called before it first waits; raises where nobody is left who could wake it.
            abandon: Called where the loop is closed before.
        """
        if ready():
            return
        import asyncio  # which is there already; others need not have it

        from pio.engine.loop_waiter import LoopWaiter

        loop = asyncio.get_running_loop()
        while not ready():
            waiter = LoopWaiter(loop, abandon)
            self._waiting[waiter] = None
            # whoever should wake it may have been interrupted in that: look again by itself now and then, as threads do
            timer = loop.call_later(LOOK, waiter.wake)
            try:
                if ready():
                    return
                check()
                await waiter.future
            finally:
                timer.cancel()
                self._waiting.pop(waiter, None)

    def wait(
        self,
        ready: Callable[[], bool],
        check: Callable[[], object],
        deadline: float | None = None,
        *,
        woken: bool = False,
    ) -> bool:
        """Wait until ``ready()``; return False where the deadline comes first.

        Args:
            ready: Whether the wait is over.
            check: Called before the thread first sleeps and after each half second in which nobody woke it, for
                example to find out that nobody is left who could; what it raises ends the wait.
            deadline: By ``time.monotonic``; None for ever.
            woken: Whether whoever wakes this thread was there just now, so that the first check can wait.
        """
        while not ready():
            lock = threading.Lock()
            lock.acquire()
            self._waiting[lock] = None
            try:
                if ready():
                    return True
                if not woken:  # whoever has woken this thread is there
                    check()
                left = LOOK if deadline is None else min(LOOK, deadline - time.monotonic())
                if left <= 0:
                    return False
                # A signal that comes just before this thread sleeps is seen when it wakes, hence never sleep for long.
                woken = lock.acquire(timeout=left)
            finally:
                self._waiting.pop(lock, None)
        return True


def deadline_of(timeout: object) -> float | None:
    """Return when a timeout in seconds is over, by ``time.monotonic``; None for no timeout.

    Any number is one: at once where it is not above 0, and for ever where it is infinite.

    Raises:
        ConfigError: It is no number.
    """
    if timeout is None:
        return None
    seconds = float("nan")
    if hasattr(timeout, "__float__") or hasattr(timeout, "__index__"):
        number: Any = timeout
        try:
            seconds = float(number)
        except OverflowError:  # an int beyond all floats
            seconds = float("inf") if number > 0 else float("-inf")
        except (TypeError, ValueError):
            pass
    if seconds != seconds:
        raise ConfigError(f"timeout: found {timeout!r}, expected a number of seconds, or None to wait for ever")
    return time.monotonic() + seconds
