"""Tells the calls in an answer from its text, while it comes."""

from __future__ import annotations

import hashlib
import re
from typing import Final, TypeAlias

from pio.text.calling.body import CLOSE, OPEN, Body
from pio.text.calling.tag_lexer import TagLexer
from pio.text.calling.tool_call import ToolCall
from pio.text.calling.toolbox import Toolbox
from pio.text.reasoning import Kind

Part: TypeAlias = tuple[Kind, str, ToolCall | None]
"""What a text is, the text, and the call that is complete with it."""

_SPACE: Final = re.compile(r"[ \t\r\n]+")
CUT_OFF: Final = "the answer ended within the call"


class CallSplitter:
    """Splits a stream of text into calls and the text around them; tags may be cut anywhere, and no character is lost.

    Space before a call is markup, as chat templates write it there, and so is space behind one, but between two texts.
    What has begun as a call stays one, and comes as such, with what is wrong with it. One object serves one answer and
    one thread.
    """

    def __init__(self, body: type[Body], toolbox: Toolbox, salt: str) -> None:
        """Start before the first character.

        Args:
            body: Reads one call of the model's format.
            toolbox: The declared tools.
            salt: Of the calls' ids.
        """
        self._new, self._toolbox, self._salt = body, toolbox, salt
        self._bare = frozenset(body.bare_tags(toolbox))
        self._lexer = TagLexer((*body.tags, *self._bare))
        self._body: Body | None = None  # of the call that the text stands in
        self._ended: Body | None = None  # of one that is complete, but for its closing tag
        self._raw: list[str] = []
        self._space: list[str] = []  # may be next to a call
        self._near = False  # whether a call stands right before that
        self._told = False  # whether there is text before it
        self._count = 0

    @property
    def inside(self) -> bool:
        """Whether the text so far ends within a call."""
        return self._body is not None

    def push(self, piece: str) -> list[Part]:
        """Add text and return what is certain now, in order; only the text of a part with a call may be empty."""
        found: list[Part] = []
        for is_tag, text in self._lexer.push(piece):
            (self._tag if is_tag else self._text)(text, found)
        return found

    def flush(self) -> list[Part]:
        """Return what was held back, and the call that the answer ended in."""
        found: list[Part] = []
        for is_tag, text in self._lexer.flush():
            (self._tag if is_tag else self._text)(text, found)
        self._finish(found, self._body or self._ended, last=True)
        self._release(found, "markup" if self._near else "text")
        return found

    def _text(self, run: str, found: list[Part]) -> None:
        place = 0
        while place < len(run):
            if self._body is not None:
                used = self._body.text(run[place:] if place else run)
                self._take(found, run[place : place + used])
                place += used
                self._look()
            elif space := _SPACE.match(run, place):
                self._space.append(space[0])
                place = space.end()
            elif self._ended is not None:
                place += self._behind(run[place], found)
            else:
                end = _last_space(run, place)
                self._tell(found, run[place:end])
                place = end

    def _tag(self, tag: str, found: list[Part]) -> None:
        if self._body is not None:
            verdict = self._body.tag(tag)
            if verdict == "before":
                self._body, self._ended = None, self._body
            else:
                self._take(found, tag)
                if verdict == "closes":
                    self._finish(found, self._body)
                self._look()
                return
        if self._ended is not None:
            if tag == CLOSE:
                self._take_space(found)
                self._take(found, tag)
                self._finish(found, self._ended)
                return
            if self._behind(tag, found):
                return
        if self._ended is None and tag == CLOSE and self._near:
            self._release(found, "markup")
            _add(found, "markup", tag)  # one too many
        elif tag == OPEN or tag in self._bare:
            self._release(found, "markup")
            self._begin(tag, found)
        else:
            self._tell(found, tag)

    def _behind(self, item: str, found: list[Part]) -> int:
        """Take a character or a tag right behind a complete call; return how many characters were used."""
        ended = self._ended
        sequel = None if ended is None else ended.follows(item)
        if sequel == "within":
            self._take_space(found)
            self._take(found, item)
            return len(item)
        self._finish(found, ended)
        if sequel is None:
            return 0
        space, self._space = self._space, []
        self._body = self._new(self._toolbox)
        for text in space:
            self._take(found, text)
        if len(item) > 1:  # a tag; a character is read with the run that it stands in
            self._body.tag(item)
            self._take(found, item)
            return len(item)
        return 0

    def _begin(self, tag: str, found: list[Part]) -> None:
        self._body = self._new(self._toolbox)
        if tag != OPEN:
            self._body.tag(tag)
        self._take(found, tag)

    def _look(self) -> None:
        """Step out of a call of which no more than its closing tag is to come."""
        if self._body is not None and self._body.complete:
            self._body, self._ended = None, self._body

    def _take(self, found: list[Part], text: str) -> None:
        """Add text to the call."""
        self._raw.append(text)
        _add(found, "tool_call", text)

    def _take_space(self, found: list[Part]) -> None:
        space, self._space = self._space, []
        for text in space:
            self._take(found, text)

    def _tell(self, found: list[Part], text: str) -> None:
        """Add text that belongs to no call."""
        self._release(found, "text" if self._told or not self._near else "markup")
        self._near, self._told = False, True
        _add(found, "text", text)

    def _release(self, found: list[Part], kind: Kind) -> None:
        """Let go of the space that was held back."""
        space, self._space = self._space, []
        _add(found, kind, "".join(space))

    def _finish(self, found: list[Part], body: Body | None, *, last: bool = False) -> None:
        """End a call, and hand it over with the text that is there of it."""
        if body is None:
            return
        body.end()
        if last and not body.complete:
            body.problems.append(CUT_OFF)
        raw, self._raw = "".join(self._raw), []
        self._body = self._ended = None
        self._near = True
        number = hashlib.sha256(f"{self._salt} {self._count} {raw}".encode("utf-8", "surrogatepass")).hexdigest()
        self._count += 1
        call = ToolCall(f"call_{number[:24]}", body.name, body.arguments, raw, body.malformed)
        if found and found[-1][0] == "tool_call" and found[-1][2] is None:
            found[-1] = ("tool_call", found[-1][1], call)
        else:
            found.append(("tool_call", "", call))


def _add(found: list[Part], kind: Kind, text: str) -> None:
    """Add text, to the part before where that is of the kind and completes no call."""
    if text and found and found[-1][0] == kind and found[-1][2] is None:
        found[-1] = (kind, found[-1][1] + text, None)
    elif text:
        found.append((kind, text, None))


def _last_space(run: str, place: int) -> int:
    """Where the space begins with which a run ends; ``place`` is not within it."""
    return len(run.rstrip(" \t\r\n")) if run[-1] in " \t\r\n" else len(run)
