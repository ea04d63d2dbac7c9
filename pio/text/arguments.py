"""The arguments of a tool call: values by name, and the text that they were given as."""

from __future__ import annotations

import json
from typing import Any, NoReturn


class Arguments(dict[str, Any]):
    """The arguments of a call: a dict to templates that walk it, JSON text to those that write it.

    Templates disagree about what arguments are, and so do clients: those of OpenAI's interface send JSON text.
    """

    __slots__ = ("_text",)

    def __init__(self, values: dict[str, Any], text: str | None = None) -> None:
        """Hold arguments.

        Args:
            values: By name.
            text: The JSON text that they were given as, if they were.
        """
        super().__init__(values)
        self._text = text

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False) if self._text is None else self._text

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        raise TypeError("arguments of a template are not stored")


def given_text(arguments: Arguments) -> str | None:
    """Return the text that arguments were given as, or None where they were given as a dict."""
    return arguments._text  # pyright: ignore[reportPrivateUsage]  hidden from templates
