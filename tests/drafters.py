"""Who proposes tokens in tests, and who takes all of them."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from collections.abc import Sequence as Collection

from pio.engine.drafts.drafter import Draft
from pio.engine.drafts.speculation import Speculation
from pio.engine.sequence import Sequence


class EveryDraft:
    """A gate that has as much drafted as there is room for."""

    def choose(self, sequences: int, prompts: int, survivals: Collection[Collection[float]], most: int) -> list[int]:
        counts: list[int] = []
        for draft in survivals:
            counts.append(min(len(draft), most))
            most -= counts[-1]
        return counts

    def note(self, sequences: int, tokens: int, given: int, seconds: float) -> None:
        """Learn nothing."""


class NoDraft(EveryDraft):
    """A gate that has nothing drafted."""

    def choose(self, sequences: int, prompts: int, survivals: Collection[Collection[float]], most: int) -> list[int]:
        return [0] * len(survivals)


class RandomDrafter:
    """Proposes what comes, as far as it knows it, then something else; of random lengths, and sometimes nothing.

    With ``always`` it is all that is known, as many tokens as are wanted.
    """

    nbytes = 0

    def __init__(self, seed: int, vocab_size: int, known: Callable[[Sequence], Collection[int]] | None = None) -> None:
        """``known`` returns the true answer of a sequence, or as much of it as is known."""
        self._random = random.Random(seed)
        self._vocab_size = vocab_size
        self._known = known or (lambda sequence: ())
        self.held: set[Sequence] = set()
        self.always = False

    def propose(self, wanted: Collection[tuple[Sequence, int]]) -> list[Draft | None]:
        found: list[Draft | None] = []
        for sequence, most in wanted:
            self.held.add(sequence)
            length = most if self.always else self._random.randint(0, most)
            right = length if self.always else self._random.randint(0, length)
            done = len(sequence.tokens) - sequence.prompt_length
            tokens = list(self._known(sequence)[done : done + right])
            tokens += [self._random.randrange(self._vocab_size) for _ in range(length - len(tokens))]
            found.append(Draft(array("i", tokens), [1.0] * length) if length else None)
        return found

    def end(self, sequence: Sequence) -> None:
        self.held.discard(sequence)

    def clear(self) -> None:
        self.held.clear()


def speculation(drafter: RandomDrafter, most: int = 8) -> Speculation:
    return Speculation(drafter, EveryDraft(), most)


def naive_longest(tokens: list[int]) -> int:
    """How many tokens at the end of a text stand in it somewhere before, with another one behind them."""
    end = len(tokens)
    return max(
        (length for length in range(min(end, 33)) for at in range(length, end) if same(tokens, at, length)), default=0
    )


def same(tokens: list[int], at: int, length: int) -> bool:
    return tokens[at - length : at] == tokens[len(tokens) - length :] if length else True
