"""Calls of Qwen3, in the form that Hermes began: a JSON object with name and arguments between two tags."""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal

from pio.text.calling.body import CLOSE, OPEN, Body, Sequel, Verdict
from pio.text.calling.toolbox import Toolbox
from pio.text.calling.values import read_json

_OUTSIDE: Final = re.compile(r'["{}\[\]]')
_INSIDE: Final = re.compile(r'["\\]')
_NAME: Final = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.){0,256}")')


class JsonBody(Body):
    """Follows the brackets and strings of one JSON object; tags within its strings are text."""

    tags: ClassVar[tuple[str, ...]] = (OPEN, CLOSE)

    def __init__(self, toolbox: Toolbox) -> None:
        """Start behind the opening tag."""
        super().__init__(toolbox)
        self._state: Literal["start", "json", "string", "other"] = "start"
        self._depth = 0
        self._escaped = False
        self._at_line = False  # whether the string stands at the beginning of a raw line, which JSON has not
        self._parts: list[str] = []

    def text(self, run: str) -> int:
        """Take text without tags; return how many characters belong to the object."""
        place = 0
        if self._state == "start":
            place = len(run) - len(run.lstrip(" \t\r\n"))
            if place < len(run):
                self._state = "json" if run[place] == "{" else "other"
        while place < len(run) and not self.complete and self._state in ("json", "string"):
            place = self._in_string(run, place) if self._state == "string" else self._in_json(run, place)
        used = place if self.complete else len(run)
        self._parts.append(run[:used])
        return used

    def _in_json(self, run: str, place: int) -> int:
        found = _OUTSIDE.search(run, place)
        if found is None:
            return len(run)
        if found[0] == '"':
            self._state, self._at_line = "string", False
        else:
            self._depth += 1 if found[0] in "{[" else -1
            self.complete = self._depth == 0
        return found.end()

    def _in_string(self, run: str, place: int) -> int:
        if self._escaped:
            self._escaped = self._at_line = False
            return place + 1
        found = _INSIDE.search(run, place)
        end = len(run) if found is None else found.start()
        if told := run[place:end].rstrip(" \t"):
            self._at_line = told[-1] in "\r\n"
        if found is None:
            return end
        self._escaped = found[0] == "\\"
        self._state = "string" if self._escaped else "json"
        return found.end()

    def tag(self, tag: str) -> Verdict:
        """Take a tag; within a string it is text, unless a quote is missing before it."""
        if self._state == "string" and not self._at_line:
            self._escaped = self._at_line = False
            self._parts.append(tag)
            return "within"
        told = {"start": "it is empty", "other": "it is no JSON object"}
        self.problems.append(told.get(self._state, "its JSON object does not end"))
        return "closes" if tag == CLOSE else "before"

    def follows(self, item: str) -> Sequel:
        """Say what stands right behind the object: another one, or a bracket too many."""
        if item in ("}", "]"):
            self.problems.append("a bracket is closed that was never opened")
            return "within"
        return "again" if item == "{" else None

    def end(self) -> None:
        """Read the object."""
        text = "".join(self._parts)
        if self.complete:
            self.read_object(text)
        if not self.name and (found := _NAME.match(text)):
            try:
                self.name = str(read_json(found[1])[0])
            except ValueError:
                self.name = ""
