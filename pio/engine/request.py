"""What the caller's threads and the worker share about one request."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

from pio.engine.generation import TokenEvent
from pio.errors import CancelledError

T = TypeVar("T")


class Request(Generic[T]):
    """Events and results of a request, handed from the worker to any number of waiting threads.

    Attributes:
        events: Tokens so far, of all its answers, in the order they came; only ever appended to.
    """

    def __init__(self, answers: int = 1) -> None:
        self.events: list[TokenEvent] = []
        self._changed = threading.Condition()
        self._results: list[T | None] = [None] * answers
        self._missing = answers
        self._error: BaseException | None = None
        self._cancelled = False

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._missing == 0 or self.dead

    @property
    def dead(self) -> bool:
        """Whether it was cancelled or failed, so that work on it is wasted."""
        return self._cancelled or self._error is not None

    def push(self, event: TokenEvent) -> None:
        """Hand a token to those who wait."""
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def complete(self, answer: int, result: T) -> None:
        """Hand over one answer's result."""
        with self._changed:
            self._results[answer] = result
            self._missing -= 1
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End the request with an error, unless it ended before."""
        with self._changed:
            if not self.done:
                self._error = error
                self._changed.notify_all()

    def cancel(self) -> None:
        """End the request; those who wait get CancelledError at once, the worker stops at its next step."""
        with self._changed:
            self.abandon()
            self._changed.notify_all()

    def abandon(self) -> None:
        """Cancel without a lock and without waking anybody: a garbage collector may call it in any thread."""
        if self._missing:
            self._cancelled = True

    def wait_event(self, index: int) -> TokenEvent | None:
        """Return event ``index`` as soon as it exists; None once there will be none.

        Raises:
            PioError: The request failed or was cancelled.
        """
        with self._changed:
            while index >= len(self.events) and not self.done:
                self._changed.wait()
            if self._missing:
                self._raise_if_dead()
            return self.events[index] if index < len(self.events) else None

    def wait_results(self, timeout: float | None) -> list[T]:
        """Return all results as soon as they exist.

        Raises:
            TimeoutError: They do not within ``timeout`` seconds; the request goes on.
            PioError: The request failed or was cancelled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self.done:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no result within {timeout} s; the request goes on, cancel() stops it")
                self._changed.wait(left)
            if self._missing:
                self._raise_if_dead()
            return [result for result in self._results if result is not None]

    def _raise_if_dead(self) -> None:
        if self._error is not None:
            raise self._error
        if self._cancelled:
            raise CancelledError("the request was cancelled before it finished")
