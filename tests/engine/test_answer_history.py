"""Earlier answers: whose they are, and how much is kept of them."""

from __future__ import annotations

import sys
from array import array

from hypothesis import given
from hypothesis import strategies as st

from pio.engine.drafts.answer_history import END, PARTS, SHORTEST, AnswerHistory
from pio.engine.drafts.suffix_index import BYTES


def texts(history: AnswerHistory, salt: str | None = None) -> list[list[int]]:
    return [list(part.tokens) for part in history.of(salt)]


def test_each_caller_finds_his_own() -> None:
    history = AnswerHistory(1 << 20)
    history.add(None, array("i", range(10)))
    history.add("a", array("i", range(20, 30)))
    history.add("a", array("i", range(40, 50)))
    assert texts(history) == [[*range(10), END]]
    assert texts(history, "a") == [[*range(20, 30), END, *range(40, 50), END]]
    assert texts(history, "b") == []
    (part,) = history.of("a")
    history.extend(100)
    place, length = part.longest(array("i", [9, 8, 20, 21, 22]))
    assert (part.tokens[place], length) == (23, 3)
    history.clear()
    assert texts(history) == texts(history, "a") == []


def test_short_answers_are_not_kept_and_of_long_ones_their_end_is() -> None:
    history = AnswerHistory(2 * 64 * BYTES)
    history.add(None, array("i", [1] * (SHORTEST - 1)))
    assert texts(history) == []
    history.add(None, array("i", range(1000)))
    assert texts(history) == [[*range(937, 1000), END]]


def test_a_cache_of_nearly_nothing_keeps_nothing() -> None:
    for nbytes in (0, 1, 64 * BYTES):
        history = AnswerHistory(nbytes)
        history.add(None, array("i", range(50)))
        assert texts(history) == []


@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(1, 90)), max_size=60),
    st.integers(0, 12 * 64 * BYTES),
)
def test_no_more_is_kept_than_may_be(answers: list[tuple[str | None, int]], nbytes: int) -> None:
    history = AnswerHistory(nbytes)
    for number, (salt, length) in enumerate(answers):
        answer = array("i", [number] * length)
        history.add(salt, answer)
        kept = [part for caller in (None, "a", "b", "c") for part in history.of(caller)]
        history.extend(30)
        assert max((len(history.of(caller)) for caller in (None, "a", "b", "c")), default=0) <= PARTS
        tables = [table for part in kept for table in (part._heads, part._chain, part.tokens)]
        assert sum(map(sys.getsizeof, tables)) <= nbytes + len(tables) * (sys.getsizeof(array("i")) + 28)
        if kept and length >= SHORTEST:
            assert history.of(salt)[0].tokens[-2] == number, "the last answer is there"


def test_a_long_answer_is_indexed_in_pieces() -> None:
    history, answer = AnswerHistory(1 << 20), array("i", range(1000))
    history.add(None, answer)
    (part,) = history.of(None)
    for done in (300, 600, 900):
        history.extend(300)
        assert len(part) == done and part.behind == 1001 + 1 - 3 - done
        assert part.longest(array("i", range(done, done + 2))) == (0, 2)
        assert part.longest(array("i", range(100, 150))) == (150, 32)
    history.add("a", array("i", range(2000, 2040)))  # waits for its turn
    (other,) = history.of("a")
    history.extend(100)
    assert (part.behind, len(other)) == (0, 1)
    history.extend(100)
    assert other.behind == 0 and other.longest(array("i", [2005, 2006, 2007])) == (8, 3)
    history.extend(100)
    assert len(part) == 999


def test_a_part_that_is_dropped_is_not_indexed_any_more() -> None:
    history = AnswerHistory(2 * 64 * BYTES)
    for number in range(5):
        history.add(None, array("i", [number] * 40))
    assert list(history._growing) == list(reversed(history.of(None)))
    history.clear()
    history.extend(100)
    assert not history._growing
