"""Whose time is over, and for whom it can never be enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter

from pio.engine.sequence import Sequence
from pio.errors import DeadlineError


class Deadlines:
    """Watches the sequences that have one; those without cost nothing."""

    def __init__(self, chunk: int) -> None:
        """Watch nobody; ``chunk`` is how many tokens of prompts a step takes at most."""
        self._watched: set[Sequence] = set()
        self._next = math.inf  # nobody's time is over before
        self._chunk = chunk
        self._least = 0.0  # seconds: the fastest step with a whole chunk; 0 before the first

    def note(self, tokens: int, seconds: float) -> None:
        """Take in how long a step of so many tokens took; one with few tokens says nothing of a prompt."""
        if tokens >= self._chunk:
            self._least = min(self._least or seconds, seconds)

    def watch(self, sequence: Sequence, unread: Callable[[Sequence], int]) -> DeadlineError | None:
        """Watch a sequence from now on, if it has a deadline.

        Args:
            sequence: Which one.
            unread: How many tokens of its prompt the model has to read; asked only where it has one.

        Returns:
            The error to refuse it by, where reading them takes longer than all that it was given.
        """
        expires, given = sequence.consumer.expires, sequence.consumer.seconds
        if expires == math.inf:
            return None
        tokens = unread(sequence)
        least = tokens // self._chunk * self._least
        if least > given:
            return DeadlineError(
                f"{tokens} tokens of the prompt are not in the cache and take at least {least:.3g} s, for this model "
                f"was never seen to read {self._chunk} in less than {self._least:.3g} s, and the request has "
                f"{given:.3g} s for it; give a shorter prompt, or more time in deadline and first_token_deadline"
            )
        self._watched.add(sequence)
        self._next = min(self._next, expires)
        return None

    def over(self) -> list[Sequence]:
        """Return those whose time is over, and watch them no more."""
        now = perf_counter()
        if now < self._next:
            return []
        ended = [s for s in self._watched if s.consumer.expires <= now]
        self._watched.difference_update(ended)
        self._next = min((s.consumer.expires for s in self._watched), default=math.inf)
        return ended

    def forget(self, sequence: Sequence) -> None:
        """Watch a sequence no more, for it has come to its end."""
        self._watched.discard(sequence)

    def clear(self) -> None:
        """Watch nobody."""
        self._watched.clear()
        self._next = math.inf
