"""Calls of GLM: a name, then keys and values, each between tags of its own."""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal

from pio.text.calling.body import CLOSE, OPEN, Body, Verdict
from pio.text.calling.toolbox import Toolbox

KEY: Final = "<arg_key>"
END_KEY: Final = "</arg_key>"
VALUE: Final = "<arg_value>"
END_VALUE: Final = "</arg_value>"
_UNCLOSED: Final = re.compile(r"<arg_key>([^<>]{1,256})</arg_key>\s*<arg_value>")


class PairsBody(Body):
    """Reads a name and pairs of ``<arg_key>`` and ``<arg_value>``.

    Values hold anything, also tags. A closing tag ends a value only where a tag stands right behind it; tags of a call
    within a value are matched with each other. A JSON object in the place of all that, or behind the name, is read too.
    """

    tags: ClassVar[tuple[str, ...]] = (OPEN, CLOSE, KEY, END_KEY, VALUE, END_VALUE)

    def __init__(self, toolbox: Toolbox) -> None:
        """Start behind the opening tag."""
        super().__init__(toolbox)
        self._state: Literal["name", "after", "key", "between", "value"] = "name"
        self._parts: list[str] = []  # of the name, the key or the value
        self._pending: list[str] = []  # a closing tag that may belong to the value, and space behind it
        self._key = ""
        self._depths: dict[str, int] = dict.fromkeys((OPEN, VALUE), 0)  # of tags within the value

    def text(self, run: str) -> int:
        """Take text without tags; all of it belongs to the call."""
        if self._state in ("name", "key"):
            self._parts.append(run)
        elif self._state == "value":
            if self._pending and not run.strip():
                self._pending.append(run)
            else:
                self._keep()
                self._parts.append(run)
        elif run.strip():
            self.problems.append("there is text between its tags")
        return len(run)

    def tag(self, tag: str) -> Verdict:
        """Take a tag."""
        if self._state == "value" and not self._ends_value(tag):
            return "within"
        if tag in (OPEN, CLOSE):
            self._close()
            return "closes" if tag == CLOSE else "before"
        match self._state, tag:
            case "name", "<arg_key>":
                self._named()
                self._state = "key"
            case "name", "</arg_key>":
                self._key_without_tag()
            case "key", "</arg_key>":
                self._keyed()
            case "key", "<arg_value>":
                self.problems.append(f"{END_KEY} is missing")
                self._keyed()
                self._state = "value"
            case "between", "<arg_value>":
                self._state = "value"
            case (("after" | "between"), "<arg_key>"):
                if self._state == "between":
                    self.problems.append(f"argument {self._key!r} has no value")
                self._state = "key"
            case _:
                self.problems.append(f"{tag} stands in the wrong place")
        return "within"

    def end(self) -> None:
        """Read what a closing tag at the very end has ended."""
        if self._state == "name" and not self.complete:
            self.name = "".join(self._parts).strip().partition("\n")[0].strip()
        elif self._pending and self._pending[0] == END_VALUE:
            self._finish_value()
        elif self._pending:
            self.problems.append(f"{END_VALUE} is missing behind {self._key!r}")
            self._finish_value()
            self.complete = True

    def _close(self) -> None:
        """End the call."""
        if self._state == "name":
            text = "".join(self._parts).strip()
            name, line, rest = text.partition("\n")
            if text.startswith("{"):
                self.read_object(text)
            elif line and rest.lstrip().startswith("{"):
                self.name = name.strip()
                self.read_arguments(rest)
            else:
                self.name = text
        elif self._state in ("key", "between"):
            self.problems.append("it ends behind a key without a value")
        self.complete = True

    def _named(self) -> None:
        self.name, self._parts = "".join(self._parts).strip(), []

    def _keyed(self) -> None:
        self._key, self._parts, self._state = "".join(self._parts).strip(), [], "between"
        self._depths = dict.fromkeys(self._depths, 0)
        if not self._key:
            self.problems.append("an argument has no name")

    def _key_without_tag(self) -> None:
        """Take what stands behind the name for a key."""
        self.problems.append(f"{KEY} is missing")
        self.name, *rest = "".join(self._parts).split(maxsplit=1) or [""]
        self._parts = rest
        self._keyed()

    def _keep(self) -> None:
        """Take what was pending for text of the value."""
        self._parts += self._pending
        self._pending = []

    def _ends_value(self, tag: str) -> bool:
        """Take a tag within a value; return whether the value ended before it."""
        if self._pending:
            last = self._pending[0]
            if last == END_VALUE and tag in (KEY, OPEN, CLOSE):
                self._finish_value()
                return True
            if last == CLOSE and tag == OPEN:
                self.problems.append(f"{END_VALUE} is missing behind {self._key!r}")
                self._finish_value()
                return True
            self._keep()
        opened = {END_VALUE: VALUE, CLOSE: OPEN}.get(tag)
        if opened is None:
            if tag in self._depths:
                self._depths[tag] += tag == OPEN or self._depths[OPEN] > 0
        elif self._depths[opened]:
            self._depths[opened] -= 1
        else:
            self._pending = [tag]
            return False
        self._parts.append(tag)
        return False

    def _finish_value(self) -> None:
        """Add the value, and those that an unclosed one before them has swallowed."""
        text = "".join(self._parts)
        self._parts, self._pending, self._state = [], [], "after"
        self.add_texts(self._key, text, () if OPEN in text else _UNCLOSED.finditer(text), END_VALUE)
