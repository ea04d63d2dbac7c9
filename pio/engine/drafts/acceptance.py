"""How likely the next token of a text is the one that stands where its last tokens were found."""

from __future__ import annotations

from typing import Final

# How many tokens in a row were equal, by class; the first three are met where a single token was another one.
LENGTHS: Final = (0, 1, 2, 3, 4, 5, 7, 10, 16, 24, 32)
CLASSES: Final = bytes(max(i for i, least in enumerate(LENGTHS) if n >= least) for n in range(LENGTHS[-1] + 1))
FIRST_CHANCES: Final = (0.2, 0.4, 0.5, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)  # before anything was seen
FIRST: Final = 0.2  # chance of a draft's first token; one that is less likely is worth no step on any machine
SMALLEST: Final = 0.05  # chance of its other tokens; what is less likely is left out


class Acceptance:
    """Counts, for each number of equal tokens in a row, how often the next one was equal too.

    Nothing need be drafted to be counted: whether a token is the one that was expected is seen when it comes. Old
    counts fade, and few ones are filled up with the chances of ``above``, for a single answer those of all answers.
    """

    __slots__ = ("_above", "_hits", "_most", "_trials", "_weight")

    def __init__(self, above: Acceptance | None = None, *, weight: float = 6.0, most: float = 64.0) -> None:
        """Begin without any.

        Args:
            above: Whose chances are taken where there are none; None takes cautious ones.
            weight: How many counts these are worth.
            most: At so many counts all are halved.
        """
        self._above = above
        self._weight, self._most = weight, most
        self._hits = [0.0] * len(LENGTHS)
        self._trials = [0.0] * len(LENGTHS)

    def count(self, length: int, hit: bool) -> None:
        """Note whether a token came as expected behind ``length`` equal ones."""
        at = CLASSES[min(length, LENGTHS[-1])]
        self._trials[at] += 1.0
        if hit:
            self._hits[at] += 1.0
        if self._trials[at] >= self._most:
            self._trials[at] /= 2
            self._hits[at] /= 2

    def chance(self, at: int) -> float:
        """Return how likely a token of a class comes as expected."""
        before = FIRST_CHANCES[at]
        if self._above is not None:
            before = min(before, self._above.chance(at))
        return (self._hits[at] + self._weight * before) / (self._trials[at] + self._weight)

    def survivals(self, length: int, most: int) -> list[float]:
        """Return how likely the first tokens of a draft all come, for one, two and more of them.

        Args:
            length: Equal tokens before the draft.
            most: Tokens of the draft at most.
        """
        found: list[float] = []
        at = CLASSES[min(length, LENGTHS[-1])]
        left, chance = 1.0, self.chance(at)
        if chance < FIRST:
            return found
        for n in range(length, length + most):
            now = CLASSES[min(n, LENGTHS[-1])]
            if now != at:
                at, chance = now, self.chance(now)
            left *= chance
            if left < SMALLEST:
                break
            found.append(left)
        return found
