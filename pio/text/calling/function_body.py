"""Calls of Qwen3-Coder: a function with its parameters as tags, each value as it is between two lines."""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal

from pio.loading.model_file import shown
from pio.text.calling.body import CLOSE, OPEN, Body, Sequel, Verdict
from pio.text.calling.toolbox import Toolbox

FUNCTION: Final = "<function="
END_FUNCTION: Final = "</function>"
PARAMETER: Final = "<parameter="
END_PARAMETER: Final = "</parameter>"
_END_OF_NAME: Final = re.compile(r"[>\r\n]")
_UNCLOSED: Final = re.compile(r"\r?\n<parameter=([^>\r\n]+)>?(?=\r?\n)")


class FunctionBody(Body):
    """Reads ``<function=NAME>``, parameters and ``</function>``.

    Values hold anything, also tags. A closing tag ends a value only where a tag stands right behind it; tags of a
    function within a value are matched with each other.
    """

    tags: ClassVar[tuple[str, ...]] = (OPEN, CLOSE, FUNCTION, END_FUNCTION, PARAMETER, END_PARAMETER)

    def __init__(self, toolbox: Toolbox) -> None:
        """Start behind the opening tag."""
        super().__init__(toolbox)
        self._state: Literal["block", "name", "between", "key", "value"] = "block"
        self._parts: list[str] = []  # of the name, the key or the value
        self._pending: list[str] = []  # a closing tag that may belong to the value, and space behind it
        self._key = ""
        self._depths: dict[str, int] = dict.fromkeys((OPEN, FUNCTION, PARAMETER), 0)  # of tags within the value
        self._at_line = False

    @classmethod
    def bare_tags(cls, toolbox: Toolbox) -> tuple[str, ...]:
        """Return how a call of each tool begins where ``<tool_call>`` was left out."""
        return tuple(f"{FUNCTION}{name}>" for name in toolbox.names)

    def follows(self, item: str) -> Sequel:
        """Say whether another function begins right behind this one."""
        return "again" if item.startswith(FUNCTION) else None

    def text(self, run: str) -> int:
        """Take text without tags; all of it belongs to the call."""
        if self._state in ("name", "key"):
            found = _END_OF_NAME.search(run)
            self._parts.append(run if found is None else run[: found.start()])
            if found is not None:
                self._named(complete=found[0] == ">")
                self.text(run[found.start() + (found[0] == ">") :])
        elif self._state == "value":
            self._in_value(run)
        elif run.strip():
            self.problems.append("there is text between its tags")
        return len(run)

    def tag(self, tag: str) -> Verdict:
        """Take a tag."""
        if tag.startswith(FUNCTION) and tag != FUNCTION:
            verdict = self.tag(FUNCTION)
            if verdict == "within":
                self.text(tag[len(FUNCTION) :])
            return verdict
        if self._state in ("name", "key"):
            self._named(complete=False)
        if self._state == "value" and not self._ends_value(tag):
            return "within"
        if self._state == "block" and tag == FUNCTION:
            self._state = "name"
            return "within"
        if self._state == "block":
            self.problems.append("it names no function")
        elif tag == PARAMETER:
            self._state = "key"
        else:
            self.complete = self.complete or tag != END_PARAMETER
        if tag in (OPEN, FUNCTION):
            return "before"
        return "closes" if tag == CLOSE else "within"

    def end(self) -> None:
        """Read what a closing tag at the very end has ended."""
        if self._state in ("name", "key"):
            self.name = self.name or self._cleaned("".join(self._parts))
        elif self._pending and self._pending[0] == END_PARAMETER:
            self._finish_value()
        elif self._pending:
            self._unclosed()
            self.complete = True

    def _named(self, *, complete: bool) -> None:
        """End the name or the key, and go on behind it."""
        what = FUNCTION if self._state == "name" else PARAMETER
        if not complete:
            self.problems.append(f"'>' is missing behind {what}")
        name, self._parts = self._cleaned("".join(self._parts)), []
        if self._state == "name":
            self.name, self._state = name, "between"
        else:
            if not name:
                self.problems.append("a parameter has no name")
            self._key, self._state, self._at_line = name, "value", False
            self._depths = dict.fromkeys(self._depths, 0)

    def _cleaned(self, text: str) -> str:
        name = text.strip()
        bare = name.strip("\"'= \t")
        if bare != name:
            self.problems.append(f"a name is written as {shown(name)}")
        return bare

    def _in_value(self, run: str) -> None:
        if self._pending and not run.strip():
            self._pending.append(run)
            return
        self._keep()
        self._parts.append(run)
        if told := run.rstrip(" \t"):
            self._at_line = told[-1] in "\r\n"

    def _keep(self) -> None:
        """Take what was pending for text of the value."""
        if self._pending:
            self._parts += self._pending
            self._pending, self._at_line = [], False

    def _ends_value(self, tag: str) -> bool:
        """Take a tag within a value; return whether the value ended before it."""
        if self._pending:
            last = self._pending[0]
            if last == END_PARAMETER:
                self._finish_value()
                return True
            if tag == OPEN or (last == END_FUNCTION and tag == CLOSE):
                self._unclosed()
                return True
            self._keep()
        ends = {END_PARAMETER: PARAMETER, END_FUNCTION: FUNCTION, CLOSE: OPEN}
        opened = ends.get(tag)
        if opened is None:
            self._depths[tag] += tag != PARAMETER or self._depths[FUNCTION] > 0
        elif self._depths[opened]:
            self._depths[opened] -= 1
        elif tag == END_PARAMETER or self._at_line:
            self._pending = [tag]
            return False
        self._parts.append(tag)
        self._at_line = False
        return False

    def _unclosed(self) -> None:
        self.problems.append(f"{END_PARAMETER} is missing behind {self._key!r}")
        self._finish_value()

    def _finish_value(self) -> None:
        """Add the value, and those that an unclosed one before them has swallowed."""
        text = "".join(self._parts)
        self._parts, self._pending, self._state = [], [], "between"
        others = () if FUNCTION in text else _UNCLOSED.finditer(text)
        self.add_texts(self._key, text, others, END_PARAMETER)

    def add_text(self, parameter: str, text: str) -> None:
        """Add a value without the line ends around it."""
        text = text[2:] if text.startswith("\r\n") else text.removeprefix("\n")
        super().add_text(parameter, text[:-2] if text.endswith("\r\n") else text.removesuffix("\n"))
