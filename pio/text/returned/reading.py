"""What the text of an assistant's turn says: reasoning, answer and calls, and where each of them stands in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pio.errors import ConfigError
from pio.text.calling.body import CLOSE
from pio.text.calling.call_format import CallFormat
from pio.text.calling.splitter import CUT_OFF, CallSplitter, Part
from pio.text.calling.tool_call import ToolCall
from pio.text.calling.toolbox import Toolbox
from pio.text.reasoning import Kind, ReasoningSplitter


class Reading(NamedTuple):
    """A text, taken apart as an answer is while it comes.

    Attributes:
        text: All of it.
        parts: What each stretch of it is, in order; together they are the text.
        closed: Whether no reasoning is open at its end.
        whole: Whether reasoning was not looked for.
    """

    text: str
    parts: list[Part]
    closed: bool
    whole: bool

    def of(self, kind: Kind) -> str:
        """Return all text of a kind."""
        return "".join(text for found, text, _ in self.parts if found == kind)

    @property
    def calls(self) -> list[ToolCall]:
        """The calls in it."""
        return [call for _, _, call in self.parts if call is not None]

    @property
    def closes_calls(self) -> bool:
        """Whether nothing is missing at the end of the last call; so it is where there is none."""
        calls = self.calls
        return not calls or (calls[-1].raw.endswith(CLOSE) and CUT_OFF not in (calls[-1].malformed or ""))

    @property
    def closes_more(self) -> bool:
        """Whether there are closing tags of calls that belong to none."""
        return any(kind == "markup" and CLOSE in text for kind, text, _ in self.parts)

    @property
    def begins(self) -> int:
        """Where the answer begins, behind the reasoning and its tags; the end where there is none."""
        place = 0
        for kind, text, _ in self.parts:
            if kind in ("text", "tool_call") and text:
                break
            place += len(text)
        return place

    @property
    def head(self) -> str:
        """What stands before the answer, without space around it: nothing where there is neither reasoning nor tag."""
        return self.text[: self.begins].strip()


def read_turn(text: str, inside: bool | None, form: CallFormat | None = None, names: Iterable[str] = ()) -> Reading:
    """Take a text apart.

    Args:
        text: Of an answer, or what a template wrote of one.
        inside: Whether it begins inside the reasoning; None where tags of reasoning are text like any other.
        form: How calls in it are written; None where they are text.
        names: Tools that it may call; of these alone some formats know calls without an opening tag.
    """
    if inside is None:
        pieces: list[tuple[Kind, str]] = [("text", text)] if text else []
        closed = True
    else:
        splitter = ReasoningSplitter(inside=inside)
        pieces = [*splitter.push(text), *splitter.flush()]
        closed = not splitter.inside
    if form is None:
        plain: list[Part] = [(kind, piece, None) for kind, piece in pieces]
        return Reading(text, plain, closed, inside is None)
    parts: list[Part] = []
    calls = CallSplitter(form.body, toolbox_of(names), "")
    for kind, piece in pieces:
        if kind == "text":
            parts += calls.push(piece)
        else:
            parts.append((kind, piece, None))
    return Reading(text, parts + calls.flush(), closed, inside is None)


def toolbox_of(names: Iterable[str]) -> Toolbox:
    """Return tools of these names, as far as a tool can have them."""
    known: list[dict[str, str]] = []
    for name in dict.fromkeys(names):
        try:
            Toolbox([{"name": name}])
        except ConfigError:  # what a model wrote in the place of a name
            continue
        known.append({"name": name})
    return Toolbox(known)
