"""The text of an answer where one token brings more than one thing."""

from __future__ import annotations

from array import array
from typing import Any, cast

import pytest

from pio.engine.answer import Answer
from pio.engine.answer_text import AnswerText
from pio.engine.request import Request
from pio.engine.sampling_params import SamplingParams
from pio.engine.sequence import Sequence
from pio.text.reasoning import Reasoning


class Pieces:
    """A detokenizer whose tokens are texts of a list."""

    skipped: frozenset[int] = frozenset()

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces

    def push(self, token: int) -> str:
        return self._pieces[token]

    def flush(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("piece", "stops", "shown", "begun"),
    [
        ("x</think>y", (), "y", "y"),
        ("x</think>y", ("yes",), "", "y"),
        ("x</think>\n\nay", ("yes",), "a", "ay"),
        ("x</think>", ("yes",), "", ""),
        ("x</think>\n", ("\n\n",), "", ""),
        ("x", ("yes",), "", ""),
        ("y", ("yes",), "", ""),
    ],
)
def test_what_has_begun_includes_what_may_become_a_stop_text(
    piece: str, stops: tuple[str, ...], shown: str, begun: str
) -> None:
    text = AnswerText(SamplingParams(stop=stops), Pieces(piece), None, Reasoning(inside=True))
    text.push(0, ends=False, last=False)
    assert (text.answer, text.begun) == (shown, begun)
    assert (text.state == "answer") == bool(begun)


class Follower:
    """Stands for a guide, and keeps what it is told."""

    answering = complete = False
    ends: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def take(self, token: int) -> None:
        pass

    def follow(self, state: str, text: str) -> None:
        self.told.append((state, text))
        self.answering = state == "answer"


def test_a_guide_hears_what_of_the_answer_came_with_the_end_of_the_reasoning() -> None:
    """Also where it is held back, or where a part of another kind comes last; and of the rest only by its tokens."""
    params, guide = SamplingParams(stop=("yes",), max_new_tokens=9), Follower()
    text = AnswerText(params, Pieces("a", "x</think>y", "z"), None, Reasoning(inside=True))
    limits: Any = {"seed": 1, "max_new_tokens": 9, "stop_token_ids": frozenset(), "penalties": None}
    answer = Answer(
        Request(), 0, params, text=text, token_text=None, token_bytes=None, guide=cast("Any", guide), **limits
    )
    sequence = Sequence(answer, array("i", [0]))
    logits: Any = None
    for token in (0, 1, 2):
        answer._choice.token = token
        assert not answer.take(sequence, logits, 0)
    assert guide.told == [("reasoning", ""), ("answer", "y"), ("answer", "")]
