from collections.abc import Collection
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pio.engine.stop_strings import StopStrings

TEXT = st.text("ab!", max_size=30)
STOPS = st.lists(st.text("ab!", min_size=1, max_size=5), max_size=4)


def search(text: str, stops: list[str], within: Collection[int] = ()) -> tuple[str, str | None]:
    """The whole text, looked through with nothing but endswith; a stop text has no end at a place ``within``."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop) and not {end, end - len(stop)} & {*within}:
                return text[: end - len(stop)], stop
    return text, None


@given(TEXT, STOPS, st.lists(st.integers(0, 30), max_size=8), st.booleans())
def test_pieces_give_what_the_whole_text_gives(text: str, stops: list[str], cuts: list[int], include: bool) -> None:
    found = StopStrings(stops, include=include)
    borders = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    pieces = [found.push(text[a:b]) for a, b in pairwise(borders)]
    shown = "".join(pieces)
    expected, matched = search(text, stops)
    assert found.matched == matched
    if matched is None:
        # what is held back is the longest end of the text that may become a stop text, and no more
        hold = max((k for stop in stops for k in range(len(stop)) if text.endswith(stop[:k])), default=0)
        assert shown == text[: len(text) - hold]
        assert shown + found.flush() == text
    else:
        assert shown == expected + (matched if include else "")
        assert found.flush() == ""


def test_nothing_is_shown_after_a_stop() -> None:
    found = StopStrings(["END"])
    assert [found.push(p) for p in ("one E", "N", "D two", " three")] == ["one ", "", "", ""]
    assert found.matched == "END"


def test_a_false_start_is_released() -> None:
    found = StopStrings(["aab"])
    assert [found.push(p) for p in "aaab"] == ["", "", "a", ""]
    assert found.matched == "aab"


@given(st.lists(st.tuples(st.text("ab!", max_size=4), st.booleans()), max_size=9), STOPS, st.booleans())
def test_hidden_text_is_looked_through_and_not_shown(
    pieces: list[tuple[str, bool]], stops: list[str], include: bool
) -> None:
    found = StopStrings(stops, include=include)
    shown = "".join(found.push(piece, hidden=hidden) for piece, hidden in pieces) + found.flush()
    whole = "".join(piece for piece, _ in pieces)
    hidden = [mark for piece, mark in pieces for _ in piece]
    within: set[int] = set()  # a hidden piece
    for i, (piece, mark) in enumerate(pieces):
        start = sum(len(earlier) for earlier, _ in pieces[:i])
        within |= set(range(start + 1, start + len(piece))) if mark else set()
    before, matched = search(whole, stops, within)
    assert found.matched == matched
    visible = "".join(c for c, mark in zip(before, hidden, strict=False) if not mark)
    assert shown == visible + (matched if matched is not None and include else "")
