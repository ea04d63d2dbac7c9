"""The caller's end of a request: stream it, wait for it, cancel it; from any thread and any event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from pio.engine.generation import Generation, TokenEvent
from pio.engine.request import Request
from pio.engine.waiters import deadline_of
from pio.errors import ConfigError, NumericalError
from pio.tensor import Tensor

T = TypeVar("T")


class Owner(Protocol):
    """What runs requests; it lives while somebody can wait for its results."""

    def check_alive(self) -> None:
        """Raise where nothing can come of a request any more."""
        ...

    def explain_not_finite(self) -> None:
        """Raise an error that says why a model computed no numbers, where that can be found out."""
        ...


class Handle:
    """A request for one or more answers.

    Iterating yields pieces of text as they become certain, with ``for`` or with ``async for``; an iterator that is
    closed or dropped before its end cancels the request, and so does any exception that ends a wait, such as that of
    Ctrl-C, of a time limit or of a cancelled task. ``await handle`` is ``result()`` for a coroutine: no thread waits
    for it. A handle that is dropped cancels its request, too: nobody could have the answer any more.

    Example:
        >>> async def ask(model):
        ...     return (await model.submit("def f", max_new_tokens=8)).text
    """

    def __init__(self, request: Request[Generation], owner: Owner, answers: int) -> None:
        self._request = request
        self._owner = owner
        self._answers = answers

    @property
    def done(self) -> bool:
        """Whether the request finished, failed or was cancelled."""
        return self._request.done

    def result(self, timeout: float | None = None) -> Generation:
        """Wait for the whole answer; with n > 1 the first one, whose ``samples`` has all, and ``usage`` their tokens.

        Args:
            timeout: Seconds to wait: any number, at once where it is not above 0; None for ever. The request goes on
                after the TimeoutError that it brings.

        Raises:
            TimeoutError: The answer is not complete in time.
            ConfigError: ``timeout`` is no number.
            CancelledError: The request was cancelled, or the model closed.
            CheckpointError: The model computed no numbers, because of a damaged weight; the message names it.
            PioError: The model failed.
        """
        return self._together(_results(self._request, self._owner, timeout))

    def __await__(self) -> Generator[Any, None, Generation]:
        """Wait for what ``result`` returns, in an event loop; cancelling the task cancels the request."""
        return self._answer().__await__()

    async def _answer(self) -> Generation:
        return self._together(await _results_in_loop(self._request, self._owner))

    def _together(self, answers: list[Generation]) -> Generation:
        """The one answer, or the first with all of them and the tokens of all."""
        if self._answers == 1:
            return answers[0]
        tokens = sum(answer.usage.completion_tokens for answer in answers)
        usage = replace(answers[0].usage, completion_tokens=tokens)
        return replace(answers[0], samples=tuple(answers), usage=usage)

    def cancel(self) -> None:
        """Stop the request, waiting, in its prompt or in its answer; does nothing to a finished one."""
        self._request.cancel()

    def __iter__(self) -> Stream[str]:
        """Stream the answer's text in pieces, none of them empty.

        Raises:
            ConfigError: The request has several answers; ``events`` tells them apart.
        """
        if self._answers > 1:
            raise ConfigError(f"a stream of text has one answer, found n={self._answers}; use n=1, or events()")
        return Stream(self, self._request, self._owner, lambda event: event.text or None)

    def __aiter__(self) -> Stream[str]:
        """Stream the answer's text in an event loop; as ``iter``."""
        return iter(self)

    def events(self) -> Stream[TokenEvent]:
        """Stream token by token, with kinds, ids and log probabilities; all answers of the request, as they come."""
        return Stream(self, self._request, self._owner, lambda event: event)

    def __del__(self) -> None:
        _drop(self)


class LogitsHandle:
    """A request for the logits of every position of a prompt."""

    def __init__(self, request: Request[Tensor], owner: Owner) -> None:
        self._request = request
        self._owner = owner

    @property
    def done(self) -> bool:
        """Whether the request finished, failed or was cancelled."""
        return self._request.done

    def result(self, timeout: float | None = None) -> Tensor:
        """Wait for the logits, float32 (tokens, vocabulary).

        Raises:
            TimeoutError: They are not complete in time; the request goes on.
            ConfigError: ``timeout`` is no number.
            CancelledError: The request was cancelled, or the model closed.
            PioError: The model failed.
        """
        return _results(self._request, self._owner, timeout)[0]

    def __await__(self) -> Generator[Any, None, Tensor]:
        """Wait for what ``result`` returns, in an event loop; cancelling the task cancels the request."""
        return self._logits().__await__()

    async def _logits(self) -> Tensor:
        return (await _results_in_loop(self._request, self._owner))[0]

    def cancel(self) -> None:
        """Stop the request; does nothing to a finished one."""
        self._request.cancel()

    def __del__(self) -> None:
        _drop(self)


class Stream(Iterator[T], AsyncIterator[T], Generic[T]):
    """Walks over a request's events as they come, with ``for`` or with ``async for``.

    It cancels the request when it is dropped before the end.
    """

    def __init__(
        self, handle: Handle, request: Request[Generation], owner: Owner, select: Callable[[TokenEvent], T | None]
    ) -> None:
        """Yield what ``select`` makes of each event, but for None."""
        self._handle = handle  # which would cancel the request if it were dropped
        self._request = request
        self._owner = owner
        self._select = select
        self._next = 0
        self._closed = False

    def __next__(self) -> T:
        try:
            while not self._closed:
                event = self._request.wait_event(self._next, self._owner.check_alive)
                if event is None:
                    break
                self._next += 1
                selected = self._select(event)
                if selected is not None:
                    return selected
        except BaseException as error:
            _end(self._request, self._owner, error)
            raise
        raise StopIteration

    async def __anext__(self) -> T:
        try:
            while not self._closed:
                event = await self._request.next_event(self._next, self._owner.check_alive)
                if event is None:
                    break
                self._next += 1
                selected = self._select(event)
                if selected is not None:
                    return selected
        except BaseException as error:
            await _end_in_loop(self._request, self._owner, error)
            raise
        raise StopAsyncIteration

    def close(self) -> None:
        """Cancel the request unless it is finished; the iterator is at its end then."""
        self._closed = True
        self._request.cancel()

    async def aclose(self) -> None:
        """Do what ``close`` does; for ``contextlib.aclosing``."""
        self.close()

    def __del__(self) -> None:
        _drop(self)


def _drop(holder: Any) -> None:
    """Cancel a request that nobody can wait for any more."""
    request = getattr(holder, "_request", None)  # a signal handler's exception may have ended its holder's making
    if request is not None:
        request.cancel()  # takes no lock: the collector may run inside any critical section, in any thread


def _results(request: Request[T], owner: Owner, timeout: float | None) -> list[T]:
    """Wait for all results; only the timeout that was asked for leaves the request running."""
    deadline, late = deadline_of(timeout), None
    try:
        results = request.wait_results(deadline, owner.check_alive)
        if results is None:
            late = TimeoutError(f"no result within {timeout} s; the request goes on, cancel() stops it")
            raise late
        return results
    except BaseException as error:
        if error is not late:
            _end(request, owner, error)
        raise


async def _results_in_loop(request: Request[T], owner: Owner) -> list[T]:
    """Wait for all results in an event loop."""
    try:
        return await request.all_results(owner.check_alive)
    except BaseException as error:
        await _end_in_loop(request, owner, error)
        raise


async def _end_in_loop(request: Request[Any], owner: Owner, error: BaseException) -> None:
    """Do what ``_end`` does; reading all weights for a reason takes long, and holds no event loop up."""
    request.cancel()
    if isinstance(error, NumericalError):
        import asyncio

        await asyncio.to_thread(owner.explain_not_finite)


def _end(request: Request[Any], owner: Owner, error: BaseException) -> None:
    """End a request that nobody waits for any more; say why a model computed no numbers, where it did not."""
    request.cancel()
    if isinstance(error, NumericalError):
        owner.explain_not_finite()
