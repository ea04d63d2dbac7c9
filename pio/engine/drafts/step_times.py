"""How long steps take, by how many tokens they compute."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

# Weights of a new measurement: a step may be slow because something else runs, and is never fast by chance.
FASTER: Final = 0.3
SLOWER: Final = 0.05
OUTLIER: Final = 2.0  # a step that took so many times what was expected counts as that


class StepTimes:
    """Smoothed seconds of steps by their number of tokens, and what is to be expected of those that were not run.

    All steps get slower or faster together, as contexts grow and others use the machine. So what is seen of steps
    without drafts, of which there are always some, moves what is expected of all sizes.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []  # that were measured, ascending
        self._seconds: dict[int, float] = {}
        self._drifts: dict[int, float] = {}  # how slow all steps were then
        self._drift = 1.0
        self._counts: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._steps = 0

    def note(self, tokens: int, seconds: float, *, plain: bool = True) -> None:
        """Take in a step; of the first two of a size the faster counts, for the first may be recorded as it runs.

        The first counts for ``OUTLIER`` times what sizes beside it let expect at most, whatever held it up: it may be
        the only one for long, and what it seems to have lost keeps others from being tried.

        Args:
            tokens: It computed.
            seconds: It took.
            plain: Whether it had no drafts.
        """
        self._steps += 1
        count = self._counts.get(tokens, 0)
        self._counts[tokens], self._last[tokens] = count + 1, self._steps
        if not count:
            if self._sizes:
                seconds = min(seconds, OUTLIER * self.expected(tokens))
            insort(self._sizes, tokens)
        elif count == 1:
            seconds = min(self.expected(tokens), seconds)
        else:
            before = self.expected(tokens)
            weight = FASTER if seconds < before else SLOWER
            seconds = before + weight * (min(seconds, OUTLIER * before) - before)
            if plain:
                self._drift *= seconds / before
        self._seconds[tokens], self._drifts[tokens] = seconds, self._drift

    def count(self, tokens: int) -> int:
        """Return how many steps of so many tokens there were."""
        return self._counts.get(tokens, 0)

    def age(self, tokens: int) -> int:
        """Return how many steps ago the last one of so many tokens was, which there must have been."""
        return self._steps - self._last[tokens]

    def expected(self, tokens: int) -> float:
        """Return the seconds of a step of so many tokens, rather too many than too few.

        Between two sizes that were measured it is a straight line; beyond the largest, every token takes as long as one
        of the largest does. Before the first measurement it is 0.
        """
        if tokens in self._seconds:
            return self._seconds[tokens] * self._drift / self._drifts[tokens]
        sizes = self._sizes
        at = bisect_left(sizes, tokens)
        if not sizes:
            return 0.0
        if at == 0:
            return self.expected(sizes[0])
        low = sizes[at - 1]
        if at == len(sizes):
            return self.expected(low) * tokens / low
        high, least = sizes[at], self.expected(low)
        return least + (self.expected(high) - least) * (tokens - low) / (high - low)

    def least(self, tokens: int) -> float:
        """Return the seconds that a step of so many tokens takes at least: those of the next smaller measured one."""
        at = bisect_left(self._sizes, tokens)
        return self.expected(self._sizes[at - 1]) if at else 0.0

    @property
    def largest(self) -> int:
        """Tokens of the largest step that was measured; 0 before the first."""
        return self._sizes[-1] if self._sizes else 0
