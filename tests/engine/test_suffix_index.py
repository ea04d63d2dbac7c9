"""The index finds what a search through all places finds."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from pio.engine.drafts.suffix_index import CANDIDATES, LONGEST, RUN, SuffixIndex

texts = st.lists(st.integers(0, 3), max_size=60)


def naive(tokens: list[int], context: list[int], first: int, least: int) -> tuple[int, int]:
    """Compare every place with something behind it, the latest first, one token after another."""
    best = 0, least
    for place in range(len(tokens) - 1, max(first, RUN) - 1, -1):
        equal = 0
        while (
            equal < min(place, len(context), LONGEST) and tokens[place - 1 - equal] == context[len(context) - 1 - equal]
        ):
            equal += 1
        if equal > best[1]:
            best = place, equal
    return best


def seen(tokens: list[int], context: list[int], first: int) -> int:
    """How many places end with the run that the context ends with."""
    run = context[-RUN:]
    return sum(tokens[place - RUN : place] == run for place in range(max(first, RUN), len(tokens) + 1))


@given(texts, texts, st.integers(0, 10), st.integers(RUN - 1, 5), st.lists(st.integers(1, 20), max_size=4))
def test_the_longest_stretch_is_found(
    tokens: list[int], context: list[int], first: int, least: int, slices: list[int]
) -> None:
    text = array("i")
    index = SuffixIndex(text, first, 1)  # 64 heads, which runs share
    for count in slices:
        text.extend(tokens[len(text) : len(text) + count])
        index.extend(count)
    text.extend(tokens[len(text) :])
    index.extend()
    assert len(index) == max(0, len(tokens) + 1 - max(first, RUN))
    place, length = index.longest(array("i", context), least)
    expected = naive(tokens, context, first, least)
    if len(context) < RUN:
        assert (place, length) == (0, least)
    elif seen(tokens, context, first) < CANDIDATES:
        assert (place, length) in (expected, (0, least))  # others may have the same hash
        index._mask, index._heads, index._chain = (1 << 18) - 1, array("i", bytes(4 << 18)), array("i")
        index.extend()
        assert index.longest(array("i", context), least) == expected
    else:
        assert length <= expected[1]
        assert place == 0 or naive(tokens[: place + 1], context, place, least) == (place, length)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_a_text_is_looked_up_in_itself(tokens: list[int]) -> None:
    text = array("i")
    index = SuffixIndex(text, 0, 1 << 16)
    for token in tokens:
        text.append(token)
        index.extend()
        if len(text) >= RUN and seen(list(text), list(text), 0) < CANDIDATES:
            assert index.longest(text) == naive(list(text), list(text), 0, RUN - 1)


def test_among_equals_the_latest_is_taken_and_long_ones_are_not_counted_to_their_end() -> None:
    text = array("i", list(range(100)) + [7] + list(range(100)) + [8])
    index = SuffixIndex(text, 0, len(text))
    index.extend()
    assert index.longest(array("i", range(100))) == (201, LONGEST)
    assert index.longest(array("i", [50, 51, 52])) == (101 + 53, 3)
    assert index.longest(array("i", [50, 51, 52]), least=3) == (0, 3)
    assert index.longest(array("i", [99, 8])) == index.longest(array("i")) == (0, 2)


def test_what_nothing_stands_behind_is_no_place() -> None:
    text = array("i", [1, 2, 3, 9, 1, 2, 3])
    index = SuffixIndex(text, 0, 64)
    index.extend()
    assert index.longest(text) == (3, 3)
    text.append(4)
    index.extend()
    assert index.longest(array("i", [1, 2, 3])) == (7, 3)
