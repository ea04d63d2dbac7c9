"""What stands between the tags of a call, piece by piece; each format has its own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, TypeAlias, cast

from pio.text.calling.toolbox import Toolbox
from pio.text.calling.values import read_json

Verdict: TypeAlias = Literal["within", "closes", "before"]
"""Of a tag: it belongs to the call; it belongs to it and ends it; the call ended before it."""

Sequel: TypeAlias = Literal["again", "within"] | None
"""Of what stands right behind a complete call: another one begins; it still belongs to it; neither."""

OPEN = "<tool_call>"
CLOSE = "</tool_call>"


class Body(ABC):
    """Reads one call; what it makes of a text does not depend on how it was cut.

    Attributes:
        tags: What the format knows.
        complete: Whether all of the call is there; at most closing tags are still to come.
        name: The tool's, as far as it is known.
        arguments: Those that were read.
        problems: What is wrong with the call, in the order in which it was seen.
    """

    tags: ClassVar[tuple[str, ...]]

    def __init__(self, toolbox: Toolbox) -> None:
        """Start behind the opening tag."""
        self.toolbox = toolbox
        self.complete = False
        self.name: str = ""
        self.arguments: dict[str, Any] = {}
        self.problems: list[str] = []

    @abstractmethod
    def text(self, run: str) -> int:
        """Take text without tags; return how many characters belong to the call: fewer only where it is complete."""

    @abstractmethod
    def tag(self, tag: str) -> Verdict:
        """Take a tag."""

    @abstractmethod
    def end(self) -> None:
        """Read what was not read before, now that no more is to come."""

    @classmethod
    def bare_tags(cls, toolbox: Toolbox) -> tuple[str, ...]:
        """Return tags that begin a call where the opening one was left out."""
        return ()

    def follows(self, item: str) -> Sequel:
        """Say what a character, or a tag, is that stands right behind a complete call."""
        return None

    @property
    def malformed(self) -> str | None:
        """All problems in one text, that of the name included; None where there are none. Asked for at the end."""
        wrong = self.toolbox.problem_of_name(self.name)
        return "; ".join([*([wrong] if wrong else ()), *dict.fromkeys(self.problems)]) or None

    def add(self, parameter: str, value: Any, problem: str | None) -> None:
        """Add an argument; of two with one name the second is kept, and that is a problem."""
        if parameter in self.arguments:
            self.problems.append(f"argument {parameter!r} is given twice")
        if problem is not None:
            self.problems.append(f"argument {parameter!r}: {problem}")
        self.arguments[parameter] = value

    def add_text(self, parameter: str, text: str) -> None:
        """Add an argument that says no type; none where it has no name, which was told before."""
        if parameter:
            self.add(parameter, *self.toolbox.decode(self.name, parameter, text))

    def add_texts(self, parameter: str, text: str, others: Iterable[re.Match[str]], closing: str) -> None:
        """Add an argument, and those that it has swallowed because its closing tag is missing.

        Args:
            parameter: Its name.
            text: What was read as its value.
            others: Where others may begin in it; the first group is the name of one.
            closing: The tag.
        """
        begin = 0
        for found in others:
            other = found[1].strip()
            if other not in (parameter, *self.arguments) and self.toolbox.takes(self.name, other):
                self.problems.append(f"{closing} is missing behind {parameter!r}")
                self.add_text(parameter, text[begin : found.start()])
                parameter, begin = other, found.end()
        self.add_text(parameter, text[begin:])

    def read_object(self, text: str) -> None:
        """Read a call that is written as a JSON object with a name and arguments."""
        found = self._read(text, "it is")
        fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        if isinstance(name := fields.get("name"), str):
            self.name = name
            self.read_arguments(fields.get("arguments"))
        elif found is not None:
            self.problems.append('it is no JSON object with a "name"')

    def read_arguments(self, given: Any) -> None:
        """Take arguments that were written as JSON, or as the text of it."""
        if isinstance(given, str) and given.strip():
            given = self._read(given, "its arguments are")
            if given is None:
                return
        if given is None or given == "":  # so do calls without arguments come
            given = {}
        if not isinstance(given, dict):
            self.problems.append("its arguments are no JSON object")
            return
        for parameter, value in cast("dict[str, Any]", given).items():
            self.add(parameter, *self.toolbox.fitted(self.name, parameter, value))

    def _read(self, text: str, what: str) -> Any:
        """What JSON text holds; None, and a problem, where it is none."""
        try:
            found, problem = read_json(text)
        except ValueError as error:
            self.problems.append(f"{what} no JSON ({error})")
            return None
        if problem is not None:
            self.problems.append(problem)
        return found
