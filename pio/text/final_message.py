"""A last message that is left open: the beginning of an answer, given by the caller, with which the model goes on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.content_parts import TEXT_ONLY, joined
from pio.text.messages import REASONING, check_messages
from pio.text.reasoning import CLOSE, OPEN

# Stands where the message ends. The space shows whether the template keeps spaces there.
_MARK = "0f62b9d4e817-goes-on-here "


def field_of(continue_final_message: object) -> str | None:
    """Return the field that is left open, or None.

    Raises:
        ConfigError: It is none of those that can be.
    """
    if continue_final_message is None or isinstance(continue_final_message, bool):
        return "content" if continue_final_message else None
    if continue_final_message == "content" or continue_final_message in REASONING:
        return cast("str", continue_final_message)
    raise ConfigError(
        f"continue_final_message is {shown(continue_final_message)}; True, or {', '.join(('content', *REASONING))} "
        "was expected"
    )


def marked(messages: list[dict[str, Any]], field: str) -> tuple[list[dict[str, Any]], str]:
    """Return messages, the last of which ends with a mark, and the text before it.

    Raises:
        ConfigError: The last message has no such text, or calls tools behind it.
    """
    last, name = dict(messages[-1]), f"messages[{len(messages) - 1}]"
    value = last.get(field)
    if last.get("tool_calls"):
        raise ConfigError(f"continue_final_message: {name} has tool_calls, which stand behind what would be continued")
    if isinstance(value, list):
        parts = [dict(part) for part in cast("list[dict[str, Any]]", value)]
        texts = [part for part in parts if part.get("type") == "text"]
        if texts:
            text = texts[-1]["text"]
            texts[-1]["text"] += _MARK
            return [*messages[:-1], {**last, field: parts}], text
    if not isinstance(value, str):
        raise ConfigError(f'continue_final_message: {name}["{field}"] holds no text to continue; give one')
    names = [field] if field not in REASONING else [key for key in REASONING if last.get(key) == value]
    return [*messages[:-1], {**last, **dict.fromkeys(names, value + _MARK)}], value


def cut(prompt: str, text: str, where: str) -> str:
    """Return a prompt up to the mark, without spaces there if the template takes them away.

    Args:
        prompt: What the template made of ``marked``.
        text: The text before the mark.
        where: The model, for messages.

    Raises:
        ConfigError: The template does not write the text as it stands.
    """
    place = prompt.rfind(_MARK.strip())
    if place < 0 or text.strip() not in prompt:
        raise ConfigError(
            f"continue_final_message: the chat template of {where} does not write the end of the last message as it "
            "stands, so that nothing can follow it; give the answer without reasoning, or render the prompt yourself"
        )
    return prompt[:place] if prompt.startswith(_MARK, place) else prompt[:place].rstrip()


def continues_reasoning(message: object, field: str, modalities: Collection[str] = TEXT_ONLY) -> bool:
    """Say whether going on with a message, for a model that takes these modalities, means going on with reasoning."""
    content = check_messages([message], modalities)[0].get("content")
    text = joined(cast("list[dict[str, Any]]", content)) if isinstance(content, list) else content
    return field in REASONING or (isinstance(text, str) and text.rfind(OPEN) > text.rfind(CLOSE))
