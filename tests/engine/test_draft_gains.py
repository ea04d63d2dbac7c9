"""What drafts gain and cost by a clock that is a table: texts that copy, and texts that do not.

The tables say how long a step of so many tokens takes, in steps of one token: of a dense model and of two mixtures of
experts, by what they read. They are arithmetic, and stand for no machine.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from pio.engine.drafts.gate import MeasuredGate
from pio.engine.drafts.suffix_drafter import SuffixDrafter
from pio.engine.sequence import Sequence

ROOM = 1 << 30  # bytes of indexes, more than any test needs

Table = dict[int, float]
DENSE: Table = {1: 1, 2: 1.0, 4: 1.05, 8: 1.25, 16: 2.4, 32: 4.8, 64: 9.6}
EXPERTS: Table = {1: 1, 2: 1.56, 4: 2.58, 8: 4.27, 16: 6.58, 32: 8.8, 64: 9.8}
MANY_EXPERTS: Table = {1: 1, 2: 1.49, 4: 2.44, 8: 4.24, 16: 7.43, 32: 12.5, 64: 18.9}
MODELS = [(DENSE, 15), (EXPERTS, 63), (MANY_EXPERTS, 63)]
NAMES = ["dense", "experts", "many experts"]
NOISE = 0.05  # of the clock
FIRST = 1.8  # times as long takes the first step of a size


class Clock:
    """Tells the seconds of steps by a table, with noise."""

    def __init__(self, table: Table, draw: random.Random, *, disturbed: bool = False) -> None:
        """With ``disturbed`` something else runs now and then, and steps take up to six times as long meanwhile."""
        self._table, self._draw, self._disturbed = table, draw, disturbed
        self._seen: set[int] = set()
        self._factor = 1.0

    def step(self, tokens: int) -> tuple[float, float]:
        """Return the seconds of a step, and what it would have taken with nothing else running."""
        first = tokens not in self._seen
        self._seen.add(tokens)
        if self._disturbed and self._draw.random() < 0.1:
            self._factor = self._draw.choice([1.0, 1.0, 1.5, 3.0, 6.0])
        alone = self.of(tokens) * (1 + abs(self._draw.gauss(0, NOISE)))
        return alone * (FIRST if first else 1) * self._factor, alone

    def of(self, tokens: int) -> float:
        if tokens in self._table:
            return self._table[tokens]
        low, high = next(pair for pair in pairwise(self._table) if pair[0] < tokens < pair[1])
        return self._table[low] + (self._table[high] - self._table[low]) * (tokens - low) / (high - low)


class Answered:
    def __init__(self, answer: list[int]) -> None:
        self._most = len(answer)

    def room(self, sequence: Sequence) -> int:
        return self._most - len(sequence.tokens) + sequence.prompt_length


def gain(
    drafter: SuffixDrafter, gate: MeasuredGate, clock: Clock, most: int, prompt: list[int], answer: list[int]
) -> float:
    """Return how many times as fast an answer comes as without drafts, where nothing else runs."""
    consumer: Any = Answered(answer)
    sequence = Sequence(consumer, array("i", prompt))
    sequence.tokens.append(answer[0])
    done, seconds = 1, 0.0
    while done < len(answer):
        room, count = min(most, len(answer) - done - 1), 0
        draft = drafter.propose([(sequence, room)])[0] if room > 0 else None
        if draft is not None:
            (count,) = gate.choose(1, 0, [draft.survivals], most)
        given = 1
        while draft is not None and given <= count and draft.tokens[given - 1] == answer[done + given - 1]:
            given += 1
        took, alone = clock.step(1 + count)
        gate.note(1, 1 + count, given, took)
        sequence.tokens.extend(answer[done : done + given])
        done, seconds = done + given, seconds + alone
    drafter.end(sequence)
    return (len(answer) - 1) * (1 + NOISE * 0.8) / seconds  # the noise's mean


def writer(draw: random.Random) -> Callable[[int], list[int]]:
    """Return what writes texts of 400 words, some of them in every sentence, of one to three tokens."""
    words = [[draw.randrange(5000) for _ in range(draw.randint(1, 3))] for _ in range(400)]
    weights = [1 / (1 + i) for i in range(400)]

    def write(tokens: int) -> list[int]:
        found: list[int] = []
        while len(found) < tokens:
            found += draw.choices(words, weights)[0]
        return found[:tokens]

    return write


def edited(draw: random.Random, text: list[int], every: int) -> list[int]:
    """A copy of a text: every so many tokens one is another, one more comes, or one is left out."""
    copy: list[int] = []
    for token in text:
        kind = draw.random() if draw.random() < 1 / every else -1.0
        copy += [token] if kind < 0 else [[draw.randrange(5000)], [token, draw.randrange(5000)], []][int(3 * kind)]
    return copy


@pytest.mark.parametrize("disturbed", [False, True], ids=["alone", "disturbed"])
@pytest.mark.parametrize(("model", "least"), [*zip(MODELS, (3.0, 2.0, 1.6), strict=True)], ids=NAMES)
def test_a_copy_with_small_edits_is_written_faster(model: tuple[Table, int], least: float, disturbed: bool) -> None:
    draw = random.Random(3)
    table, most = model
    text = writer(draw)(6000)
    copy = edited(draw, text, 200)
    clock = Clock(table, draw, disturbed=disturbed)
    assert gain(SuffixDrafter(0, ROOM), MeasuredGate(), clock, most, text, copy) > (
        0.75 * least if disturbed else least
    )


@pytest.mark.parametrize("disturbed", [False, True], ids=["alone", "disturbed"])
@pytest.mark.parametrize("copies", [0, 2], ids=["at once", "behind copies"])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_other_texts_are_hardly_slower(model: tuple[Table, int], copies: int, disturbed: bool) -> None:
    draw = random.Random(5)
    table, most = model
    write = writer(draw)
    drafter, gate, clock = SuffixDrafter(1 << 20, ROOM), MeasuredGate(), Clock(table, draw, disturbed=disturbed)
    for _ in range(copies):
        text = write(2000)
        gain(drafter, gate, clock, most, text, edited(draw, text, 30))
    gains = sorted(gain(drafter, gate, clock, most, write(300), write(256)) for _ in range(20))
    assert gains[10] >= 0.97 and gains[0] >= (0.9 if disturbed else 0.95)
