"""What the caller's threads and coroutines and the worker share about one request."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from time import perf_counter
from typing import Any, Generic, TypeVar

from pio.engine.generation import TokenEvent
from pio.engine.waiters import Waiters
from pio.errors import CancelledError

T = TypeVar("T")
_numbers = count(1)


class Request(Generic[T]):
    """Events and results of a request, handed from the worker to any number of waiting threads and coroutines.

    There is no lock: only the worker adds events and results, and all that others do is set a field. So a request may
    be cancelled in a signal handler or a finaliser, whatever that interrupts.

    Attributes:
        number: Tells it from all others of the process, in logs.
        queued: When it was queued, by ``time.perf_counter``; all seconds of its answers count from there.
        answers: How many of them it wants.
        error: What it failed by; None where it did not, or was cancelled.
        events: Tokens so far, of all its answers, in the order they came; only ever appended to.
        done: Whether nothing more will come.
        dead: Whether it was cancelled or failed, so that work on it is wasted.
        on_death: Called once where the request is cancelled or fails, with no lock held, by whoever ends it.
    """

    def __init__(self, answers: int = 1) -> None:
        self.number = next(_numbers)
        self.queued = perf_counter()
        self.answers = answers
        self.error: BaseException | None = None
        self.events: list[TokenEvent] = []
        self.on_death: Callable[[], object] | None = None
        self._readers = Waiters()  # of events
        self._waiters = Waiters()  # for results, who need not be woken for each token
        self._results: list[T | None] = [None] * answers
        self._missing = answers
        self.done = self.dead = False  # plain fields: they are looked at for every token

    def push(self, event: TokenEvent) -> None:
        """Hand a token to those who wait."""
        self.events.append(event)
        self._readers.wake()
        self._waiters.look()

    def complete(self, answer: int, result: T) -> None:
        """Hand over one answer's result."""
        self._results[answer] = result
        self._missing -= 1
        if not self._missing:
            self.done, self.on_death = True, None
        self._wake_all()

    def fail(self, error: BaseException) -> None:
        """End the request with an error, unless it ended before."""
        if not self.done:
            self.error = error
            self._died()

    def cancel(self) -> None:
        """End the request; those who wait get CancelledError at once, the worker stops at its next step."""
        if not self.done:
            self._died()

    def _wake_all(self) -> None:
        self._readers.wake()
        self._waiters.wake()

    def _died(self) -> None:
        self.dead = self.done = True
        self._wake_all()
        on_death, self.on_death = self.on_death, None
        if on_death is not None:
            on_death()

    def wait_event(self, index: int, check: Callable[[], object]) -> TokenEvent | None:
        """Return event ``index`` as soon as it exists; None once there will be none.

        Args:
            index: Which one.
            check: Called where it has to wait for the first one, and in each half second without any; raises where
                nothing can come any more.

        Raises:
            PioError: The request failed or was cancelled.
        """
        events = self.events
        if index >= len(events) and not self.done:
            # what has come before says that there was somebody to wake this thread
            self._readers.wait(lambda: index < len(events) or self.done, check, woken=index > 0)
        return self._event(index)

    async def next_event(self, index: int, check: Callable[[], object]) -> TokenEvent | None:
        """Do what ``wait_event`` does, in an event loop, to which it gives way at least once."""
        if index < len(self.events):
            from asyncio import sleep

            await sleep(0)
        await self._readers.wait_in_loop(lambda: index < len(self.events) or self.done, check, self.cancel)
        return self._event(index)

    def wait_results(self, deadline: float | None, check: Callable[[], object]) -> list[T] | None:
        """Return all results as soon as they exist; None where the deadline comes first.

        Raises:
            PioError: The request failed or was cancelled.
        """
        return self._all_results() if self._waiters.wait(lambda: self.done, check, deadline) else None

    async def all_results(self, check: Callable[[], object]) -> list[T]:
        """Do what ``wait_results`` does, in an event loop."""
        await self._waiters.wait_in_loop(lambda: self.done, check, self.cancel)
        return self._all_results()

    def _event(self, index: int) -> TokenEvent | None:
        if self._missing:
            self._raise_if_dead()
        return self.events[index] if index < len(self.events) else None

    def _all_results(self) -> list[T]:
        if self._missing:
            self._raise_if_dead()
        return [result for result in self._results if result is not None]

    def _raise_if_dead(self) -> None:
        if self.error is not None:
            raise self.error
        if self.dead:
            raise CancelledError("the request was cancelled before it finished")


class Owned:
    """Requests that nobody can wait for but the call that made them: whatever ends it by an exception ends them.

    A request is added before it is queued, so there is no moment at which a signal handler's exception could leave one
    behind. It is no context manager: nothing may run any more where a call has its answer.
    """

    def __init__(self) -> None:
        self._requests: list[Request[Any]] = []

    def add(self, request: Request[Any]) -> None:
        """Own a request that is about to be queued."""
        self._requests.append(request)

    def cancel(self) -> None:
        """End all of them."""
        for request in self._requests:
            request.cancel()
