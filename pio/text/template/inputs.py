"""What a template is given of a conversation, in the form that this one template reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.arguments import Arguments, given_text
from pio.text.content_parts import joined

if TYPE_CHECKING:
    from pio.text.template.facts import TemplateFacts

YOURSELF: Final = "render the prompt yourself and give its text to generate_text"
Place = tuple[Any, ...]  # where a text stands: "messages", 3, "content"


class Inputs(NamedTuple):
    """A conversation, and what is shown to the model beside it; plain data."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    documents: list[dict[str, Any]] | None

    def get(self, path: Place) -> Any:
        """Return what stands somewhere."""
        value: Any = self._asdict()
        for step in path:
            value = value[step]
        return value

    def replaced(self, texts: Mapping[Place, Any]) -> Inputs:
        """Return inputs with other texts in some places; these stay as they are."""
        fields: dict[str, Any] = self._asdict()
        copied: dict[Place, Any] = {(): fields}
        for path, text in texts.items():
            for length in range(1, len(path)):  # each container on the way is copied once
                if path[:length] not in copied:
                    above = copied[path[: length - 1]]
                    above[path[length - 1]] = copied[path[:length]] = _copy(above[path[length - 1]])
            copied[path[:-1]][path[-1]] = text
        return Inputs(**fields)


def adapted(messages: list[dict[str, Any]], facts: TemplateFacts) -> list[dict[str, Any]]:
    """Return checked messages in the form that a template reads; the given ones stay as they are.

    Raises:
        ConfigError: A content holds more than text, and the template has no place for that.
    """
    return [_adapted(message, index, facts) for index, message in enumerate(messages)]


def _adapted(message: dict[str, Any], index: int, facts: TemplateFacts) -> dict[str, Any]:
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        parts = cast("list[dict[str, Any]]", content)
        text = joined(parts)
        # The result of a tool is one text everywhere; some templates would write a list of parts as Python does.
        if text is not None and (not text or not facts.reads_parts or message["role"] == "tool"):
            content = text
        elif not facts.reads_parts:
            kinds = sorted({shown(part.get("type")) for part in parts if part.get("type") != "text"})
            raise ConfigError(
                f'messages[{index}]["content"] holds {", ".join(kinds)}, and this chat template has no place for it; '
                "leave it out"
            )
    if not content:  # clients disagree about what an assistant says that only calls tools
        content = None if calls and facts.tests_none else ""
    found: dict[str, Any] = {**message, "content": content}
    if calls and facts.text_arguments:
        found["tool_calls"] = [_with_text(call) for call in calls]
    return found


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    if "function" in call:
        return {**call, "function": _with_text(call["function"])}
    arguments: Arguments = call["arguments"]
    text = given_text(arguments)
    return call if text is None else {**call, "arguments": text}


def _copy(value: Any) -> Any:
    return cast("list[Any]", value)[:] if isinstance(value, list) else dict[str, Any](value)
