"""One call of a tool, as a model wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model wrote. As it is, it may stand in the ``tool_calls`` of an assistant's message.

    Attributes:
        id: Tells it from others; the same for the same call at the same place behind the same prompt.
        name: The tool; empty where none could be read.
        arguments: By name, of the types that the tool's schema asks for. What does not fit them is as the model wrote
            it: a text, or the value where it wrote JSON.
        raw: All of it, tags included, as the model wrote it.
        malformed: What is wrong with it; None where nothing is. The call is to be answered with this text rather than
            to be run, unless the program knows better.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    raw: str
    malformed: str | None = None
