"""What is proposed to answers that copy, and to those that do not."""

from __future__ import annotations

import random
import sys
from array import array
from typing import Any

import pytest
from drafters import naive_longest
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.engine.drafts.suffix_drafter import HELD, SuffixDrafter, running_bytes
from pio.engine.drafts.suffix_index import LONGEST, RUN, SuffixIndex, index_bytes
from pio.engine.sequence import Sequence

ROOM = 1 << 30  # bytes of indexes, more than any test needs


class Wanted:
    """A consumer that takes so many tokens."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most

    def room(self, sequence: Sequence) -> int:
        return self._most - len(sequence.tokens) + sequence.prompt_length


def begun(prompt: list[int], salt: str | None = None, family: object | None = None) -> Sequence:
    consumer: Any = Wanted()
    return Sequence(consumer, array("i", prompt), family=family, salt=salt)


def proposed(drafter: SuffixDrafter, sequence: Sequence, most: int = 8) -> list[int]:
    (draft,) = drafter.propose([(sequence, most)])
    if draft is None:
        return []
    assert len(draft.tokens) == len(draft.survivals) <= most
    assert list(draft.survivals) == sorted(draft.survivals, reverse=True)
    return list(draft.tokens)


def write(drafter: SuffixDrafter, sequence: Sequence, tokens: list[int]) -> list[list[int]]:
    """Let the sequence have one token after the other; return what was proposed behind each."""
    found: list[list[int]] = []
    for token in tokens:
        sequence.tokens.append(token)
        found.append(proposed(drafter, sequence))
    return found


def test_what_stood_behind_the_same_tokens_is_proposed() -> None:
    drafter, sequence = SuffixDrafter(0, ROOM), begun(list(range(100, 140)))
    assert write(drafter, sequence, [7, 110, 111]) == [[], [], []]
    assert write(drafter, sequence, [112])[0][:2] == [113, 114]
    found = write(drafter, sequence, list(range(113, 130)))
    assert found[-1] == list(range(130, 138))
    assert all(tokens[0] == 114 + i for i, tokens in enumerate(found))


def test_the_more_tokens_are_equal_the_more_are_proposed() -> None:
    drafter, sequence = SuffixDrafter(0, ROOM), begun(list(range(100, 200)))
    found = write(drafter, sequence, list(range(100, 150)))
    lengths = [len(tokens) for tokens in found[RUN:]]
    assert lengths == sorted(lengths) and lengths[0] < 8 == lengths[-1]


def test_behind_a_long_stretch_one_token_may_be_another() -> None:
    drafter, sequence = SuffixDrafter(0, ROOM), begun(list(range(100, 200)))
    write(drafter, sequence, [*range(100, 100 + HELD + 1), 7])
    (tokens,) = write(drafter, sequence, [100 + HELD + 2])
    assert tokens[0] == 100 + HELD + 3
    other = begun(list(range(100, 200)))
    assert write(drafter, other, [*range(100, 105), 7, 106])[-2:] == [[], []]


def test_an_answer_that_goes_round_is_thought_to_go_on_so() -> None:
    drafter, sequence = SuffixDrafter(0, ROOM), begun([1, 2])
    found = write(drafter, sequence, [5, 6, 7, 8] * 6)
    assert found[-1] == [5, 6, 7, 8, 5, 6, 7, 8]


def test_earlier_answers_of_the_same_caller_are_looked_at() -> None:
    drafter = SuffixDrafter(1 << 16, ROOM)
    first = begun([1, 2], salt="a")
    write(drafter, first, list(range(50, 80)))
    drafter.end(first)
    for salt, expected in (("a", 60), (None, None), ("b", None)):
        other = begun([3, 4], salt=salt)
        found = write(drafter, other, list(range(50, 60)))
        assert found[-1][:1] == ([] if expected is None else [expected])
        drafter.end(other)


def test_nothing_is_proposed_behind_the_end_of_an_earlier_answer() -> None:
    drafter = SuffixDrafter(1 << 16, ROOM)
    for tokens in (range(50, 70), range(80, 99)):
        answer = begun([1])
        write(drafter, answer, list(tokens))
        drafter.end(answer)
    other = begun([2])
    found = write(drafter, other, list(range(50, 70)))
    assert found[-3] == [68, 69] and found[-1] == []


def test_answers_to_one_prompt_share_its_index_until_the_last_has_ended() -> None:
    drafter, family = SuffixDrafter(0, ROOM), object()
    answers = [begun(list(range(100, 150)), family=family) for _ in range(3)]
    for answer in answers:
        assert write(drafter, answer, [120, 121, 122])[-1][0] == 123
    assert len({id(trail.prompt) for trail in drafter._trails.values()}) == 1
    for answer in answers[:2]:
        drafter.end(answer)
        drafter.end(answer)  # again
    assert write(drafter, answers[2], [130, 131, 132])[-1][0] == 133
    drafter.end(answers[2])
    assert not drafter._trails and not drafter._prompts
    drafter.end(begun([1]))  # which was never asked about


def test_a_long_prompt_is_indexed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pio.engine.drafts.suffix_drafter.SLICE", 10)
    drafter, sequence = SuffixDrafter(0, ROOM), begun(list(range(100, 140)))
    found = write(drafter, sequence, [130, 131, 132, 5, 134, 135, 136])
    assert found[2] == [] and found[-1][0] == 137


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.integers(0, 2), max_size=40))
def test_the_place_that_is_followed_has_the_longest_stretch(prompt: list[int], answer: list[int]) -> None:
    """Without the tokens that stand for another one, following a place finds what searching again would find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pio.engine.drafts.suffix_drafter.HELD", 1 << 30)
        patch.setattr("pio.engine.drafts.suffix_index.CANDIDATES", 1 << 30)
        drafter, sequence = SuffixDrafter(0, ROOM), begun(prompt)
        proposed(drafter, sequence)
        for token in answer:
            sequence.tokens.append(token)
            proposed(drafter, sequence)
            trail = drafter._trails[sequence]
            length = naive_longest(list(sequence.tokens))
            assert (min(trail._length, LONGEST) if trail.text is not None else 0) == (length if length >= RUN else 0)
            if trail.text is not None:
                place, count = trail._at, min(trail._length, LONGEST)
                assert trail.text[place - count : place] == sequence.tokens[len(sequence.tokens) - count :]


def test_a_copy_with_edits_is_mostly_foreseen() -> None:
    draw = random.Random(4)
    text = [draw.randrange(1000) for _ in range(3000)]
    copy = [token if draw.random() > 0.02 else draw.randrange(1000) for token in text]
    drafter, sequence = SuffixDrafter(0, ROOM), begun(text)
    right = sum(
        bool(tokens) and tokens[0] == token
        for tokens, token in zip(write(drafter, sequence, copy)[:-1], copy[1:], strict=True)
    )
    assert right > 0.93 * len(copy)


def test_who_finds_no_room_for_an_index_has_no_drafts_until_another_one_ends() -> None:
    prompt = list(range(100, 400))
    one = index_bytes(300, 300, 300) + index_bytes(50, 50)
    drafter, family = SuffixDrafter(0, running=2 * one + index_bytes(50, 50) - 1), object()
    for _ in range(3):  # all is given back each time, also where all are forgotten at once
        first, second, third = (
            Sequence(Wanted(50), array("i", prompt), family=shared)  # type: ignore[arg-type]
            for shared in (family, family, None)
        )
        for sequence in (first, second):
            assert write(drafter, sequence, [120, 121, 122])[-1][0] == 123
        assert write(drafter, third, [120, 121, 122]) == [[]] * 3
        drafter.end(second)
        assert write(drafter, third, [123])[-1][0] == 124
        for sequence in (first, third):
            drafter.end(sequence)
        assert drafter._left == drafter.nbytes and not drafter._trails
        for sequence in (first, second):
            write(drafter, sequence, [120])
        drafter.clear()
        assert drafter._left == drafter.nbytes


def test_an_answer_without_an_index_is_looked_at_by_later_ones() -> None:
    """There was no room for drafts of its own; what it says is kept all the same."""
    small = index_bytes(2, 2, 2) + index_bytes(50, 50)
    drafter = SuffixDrafter(1 << 16, running=small)
    first, second = (
        Sequence(Wanted(50), array("i", prompt), salt="a")  # type: ignore[arg-type]
        for prompt in (range(100, 400), (1, 2))
    )
    assert not any(write(drafter, first, list(range(50, 80))))
    drafter.end(first)
    assert write(drafter, second, list(range(50, 60)))[-1][:1] == [60]


@given(st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=20, deadline=None)
def test_indexes_take_no_more_than_they_are_counted(length: int, answer: int) -> None:
    context = length + answer
    drafter = SuffixDrafter(0, running=running_bytes(context, 1, 0))
    sequence = Sequence(Wanted(answer), array("i", range(length)))  # type: ignore[arg-type]
    drafter.propose([(sequence, 1)])
    sequence.tokens.extend(range(answer))
    drafter.propose([(sequence, 1)])
    (trail,) = drafter._trails.values()
    assert trail._answer.behind == trail.prompt.index.behind == 0
    prompt, own = trail.prompt.index, trail._answer
    assert sum(map(sys.getsizeof, (prompt._heads, prompt._chain, prompt.tokens))) <= trail.prompt.nbytes
    assert sum(map(sys.getsizeof, (own._heads, own._chain))) <= trail.nbytes
    assert trail.prompt.nbytes + trail.nbytes <= drafter.nbytes


def test_what_is_indexed_between_two_steps_is_bounded_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many prompts and answers there are."""
    monkeypatch.setattr("pio.engine.drafts.suffix_drafter.SLICE", 50)
    done: list[int] = []
    extend = SuffixIndex.extend
    monkeypatch.setattr(SuffixIndex, "extend", lambda self, *most: done.append(extend(self, *most)) or done[-1])
    drafter = SuffixDrafter(1 << 20, ROOM)
    answers = [begun(list(range(number, number + 90))) for number in (0, 200, 400)]
    for answer in answers:
        answer.tokens.extend(range(600, 640))
    drafter.propose([(answer, 4) for answer in answers])
    for answer in answers:
        drafter.end(answer)
    other = begun([1])
    steps = 0
    while drafter.history._growing or not steps:
        done.clear()
        assert len(drafter.propose([(other, 4)])) == 1
        assert sum(done) <= 50 + 2
        steps += 1
    assert steps == 3, "three answers of 41 tokens each"
