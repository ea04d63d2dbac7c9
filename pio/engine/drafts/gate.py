"""Decides how many drafted tokens a step computes: as many as give most tokens a second, by what steps took before."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence as Collection
from typing import Final, Protocol

from pio.engine.drafts.step_times import StepTimes

# Sizes of steps with drafts: few enough that each is soon measured and stays recorded.
SIZES: Final = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256)
MARGIN: Final = 1.05  # drafts have to promise so many times what a step without them gives
TRIED: Final = 2  # measurements of a size after which it is known
PLAIN: Final = 3  # steps without drafts before the first one with them, for each number of sequences
KEPT: Final = 128  # steps after which what one without drafts takes is measured again
STALE: Final = 512  # steps after which a size that was too slow may be tried again
SHARE: Final = 0.02  # of the time of steps without drafts, what may be lost by those with them
FIRST: Final = 2.0  # steps without drafts that may be lost at once
HELD: Final = 8.0  # steps as large as the last one that gained, which what it gained may pay for
FADES: Final = 0.02  # of that, with each step without drafts
BESIDE: Final = 16  # tokens of prompts for each drafted token beside them
LIKELY: Final = 0.5  # chance from which on a token is drafted beside prompts


class Gate(Protocol):
    """Says how much of its drafts a step takes."""

    def choose(self, sequences: int, prompts: int, survivals: Collection[Collection[float]], most: int) -> list[int]:
        """Return how many tokens of each draft the step computes.

        Args:
            sequences: That decode in it, those without a draft too.
            prompts: Tokens of prompts that it computes besides.
            survivals: For each draft, how likely its first tokens all come, for one, two and more of them.
            most: Drafted tokens that there is room for.
        """
        ...

    def note(self, sequences: int, tokens: int, given: int, seconds: float) -> None:
        """Take in a step without prompts.

        Args:
            sequences: That decoded in it.
            tokens: It computed, drafted ones included.
            given: Tokens that answers got.
            seconds: It took.
        """
        ...


class MeasuredGate:
    """Chooses by measured times.

    Of all ways to share so many drafted tokens among the sequences the best takes the likeliest ones. For each size of
    a step that gives the tokens to expect, and divided by its time a speed. The best speed wins, if it beats that
    without drafts by a margin.

    A size that was not measured is taken to be slow. It is tried where the drafts might gain with it and the loss that
    is to be feared is one that can be afforded: all losses are paid out of a balance, in seconds, which steps without
    drafts raise by a fiftieth of their time and steps with drafts by what they gain, for a while. Where it is spent,
    nothing is drafted. So the worst that can become of an answer's speed is known, whatever the chances are worth.

    Attributes:
        times: Of steps without prompts.
        balance: Seconds that may be lost.
    """

    def __init__(self) -> None:
        self.times = StepTimes()
        self.balance = 0.0

    def choose(self, sequences: int, prompts: int, survivals: Collection[Collection[float]], most: int) -> list[int]:
        """Return how many tokens of each draft the step computes."""
        counts = [0] * len(survivals)
        most = min(most, prompts // BESIDE) if prompts else most
        if most <= 0 or not (prompts or self._ready(sequences)):
            return counts
        if len(survivals) == 1 and not prompts:  # they are in their order
            return [self._best(sequences, survivals[0][:most])]
        ranked = sorted(((-chance, i) for i, draft in enumerate(survivals) for chance in draft))[:most]
        if prompts:
            count = bisect_right(ranked, (-LIKELY, len(counts)))
        else:
            count = self._best(sequences, [-chance for chance, _ in ranked])
        for _, i in ranked[:count]:
            counts[i] += 1
        return counts

    def note(self, sequences: int, tokens: int, given: int, seconds: float) -> None:
        """Take in a step without prompts."""
        self.times.note(tokens, seconds, plain=tokens == sequences)
        plain, took = self.times.expected(sequences), self.times.expected(tokens)  # smoothed: others may run
        gain = given * plain / sequences - took
        if tokens > sequences:
            most = self.balance if gain < 0.0 else max(self.balance, HELD * max(took, plain))
            self.balance = min(self.balance + gain, most)
        elif self.balance < FIRST * plain:
            self.balance = min(self.balance + SHARE * plain, FIRST * plain)
        else:
            self.balance -= FADES * (self.balance - FIRST * plain)

    def _ready(self, sequences: int) -> bool:
        """Whether it is known how long a step without drafts takes, and something may be lost."""
        times = self.times
        return self.balance > 0.0 and times.count(sequences) >= PLAIN and times.age(sequences) <= KEPT

    def _best(self, sequences: int, chances: Collection[float]) -> int:
        """Return how many of the drafted tokens are worth it, of all that there are, the likeliest first."""
        times = self.times
        plain = times.expected(sequences) / sequences  # seconds of a token without drafts
        best, best_count, hope, hope_count = MARGIN / plain, 0, 0.0, 0
        expected, count = float(sequences), 0
        for size in SIZES[bisect_right(SIZES, sequences) :]:
            if size - sequences > len(chances):
                break
            while count < size - sequences:
                expected += chances[count]
                count += 1
            seconds = times.expected(size)
            if expected / seconds > best:
                best, best_count = expected / seconds, count
            if size <= 2 * times.largest and self._unknown(size) and seconds - expected * plain <= self.balance:
                might = expected / times.least(size)
                if might > hope:
                    hope, hope_count = might, count
        return hope_count if hope > MARGIN * best else best_count

    def _unknown(self, size: int) -> bool:
        """Whether a size was not measured often enough, or not for long."""
        return self.times.count(size) < TRIED or self.times.age(size) > STALE
