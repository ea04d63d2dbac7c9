"""Threads that wait for something to change, and how they are woken: without any lock that could be held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pio.errors import ConfigError

LOOK = 0.5  # seconds until a wait looks again whether what it waits for can still come


class Waiters:
    """Wakes all who wait, from any thread, from a signal handler and from a finaliser, whatever these interrupt.

    Each wait has a lock of its own that nobody else takes, and putting it into a dict and taking it out are atomic. So
    whoever wakes never waits himself, and finds nothing half done where he has interrupted a wait or another waker.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[Any, None] = {}

    def wake(self) -> None:
        """Let all who wait look again. What they look at must have changed before."""
        while self._locks:
            try:
                lock, _ = self._locks.popitem()
            except KeyError:  # another waker was faster
                return
            lock.release()

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
            self._locks[lock] = None
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
                self._locks.pop(lock, None)
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
