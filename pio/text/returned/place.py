"""Where the tokens of an answer stand in the place of what a chat template wrote of it, and which of them."""

from __future__ import annotations

from typing import NamedTuple

from pio.text.calling.body import CLOSE as CLOSE_CALL
from pio.text.reasoning import OPEN
from pio.text.returned.answers import ReturnedAnswer
from pio.text.returned.reading import Reading, read_turn
from pio.text.returned.said import Said


class Unplaced(Exception):
    """A template writes an answer otherwise than its tokens do; the text says how."""


class Place(NamedTuple):
    """A stretch of a prompt, and the tokens in its place.

    Attributes:
        begin: Where it begins, counted from the turn's own beginning; below zero it is in what stands before.
        first: The first of the answer's tokens that stands there.
        end: Where it ends, counted from the turn's end: before the closing tag where the answer's last call has none.
    """

    begin: int
    first: int
    end: int = 0


def place(answer: ReturnedAnswer, before: str, turn: str) -> Place:
    """Return where an answer's tokens stand.

    A template may write other space and other JSON than the model did, and leave the reasoning out; what it leaves out
    stays left out. Anything else is another text, which no tokens are put in the place of.

    Args:
        answer: The answer.
        before: What the template wrote between the turn before and this one.
        turn: What it wrote of this one.

    Raises:
        Unplaced: It is otherwise.
    """
    if answer.reading is None:
        raise Unplaced("the format of its calls is not known")
    try:
        return _place(answer, answer.said, answer.reading, before, turn)
    except Unplaced:
        apart = answer.said.split(answer.reading, answer.form)
        if apart is None:
            raise
        return _place(answer, *apart, before, turn)


def _place(answer: ReturnedAnswer, said: Said, own: Reading, before: str, turn: str) -> Place:
    inside = None if own.whole else before.rstrip().endswith(OPEN)
    written = read_turn(turn, inside, answer.form, (call.name for call in said.calls))
    if not said.is_written(written):
        raise Unplaced("the chat template writes its text or its calls otherwise")
    if own.closes_more:
        raise Unplaced("it closes calls that are closed already")
    end = 0 if own.closes_calls or not written.closes_calls else _closing(own, turn)
    thought = written.of("reasoning").strip()
    if not thought:
        return _without_reasoning(answer, own, written)._replace(end=end)
    if thought != own.of("reasoning").strip() or not own.closed:
        raise Unplaced("the chat template writes its reasoning otherwise")
    return Place(_begin_of_reasoning(own, before, written, inside=bool(inside)), 0, end)


def _closing(own: Reading, turn: str) -> int:
    """Where the template closes the call that an answer ended in, counted from the turn's end.

    A call that the model wrote text behind is over, and stays as it wrote it.
    """
    if own.parts[-1][0] == "text":
        return 0
    head, tag, behind = turn.rpartition(CLOSE_CALL)
    if behind.strip():
        raise Unplaced("its last call is not closed, and the chat template writes text behind it")
    space = 0 if own.text.endswith("\n") else len(head) - len(head.rstrip())
    return -(space + len(tag) + len(behind))


def _without_reasoning(answer: ReturnedAnswer, own: Reading, written: Reading) -> Place:
    """Where no reasoning is in the prompt; an empty one that the template writes stays."""
    begin = written.begins if written.head else 0
    if not own.head:
        return Place(begin, 0)
    first = answer.spans.at(own.begins)
    if first is None:
        raise Unplaced("a token reaches from its reasoning, which the chat template leaves out, into its text")
    return Place(written.begins, first)


def _begin_of_reasoning(own: Reading, before: str, written: Reading, *, inside: bool) -> int:
    """Where that begins which the model wrote of the reasoning and its tags."""
    opens = own.text.lstrip().startswith(OPEN)
    if not inside:
        return written.text.index(OPEN) + (0 if opens else len(OPEN))
    if opens:
        return before.rindex(OPEN) - len(before)
    space = len(before) - len(before.rstrip())  # which the model wrote itself, where its text begins with it
    return -next((size for size in range(space, 0, -1) if own.text.startswith(before[-size:])), 0)
