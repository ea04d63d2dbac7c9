"""Conversations as callers and their clients write them, brought to one form before a template sees them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NoReturn, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.content_parts import TEXT_ONLY, checked_parts
from pio.text.plain_data import plain, record
from pio.text.tool_calls import checked_calls

# Under these names messages carry reasoning; templates read the first, a few older ones the second.
REASONING: Final = ("reasoning_content", "thinking", "reasoning")
TOKEN_IDS: Final = "token_ids"  # of an answer that comes back; no template reads them
_EXAMPLE = 'such as {"role": "user", "content": "Hi"}'
# Fields of other interfaces that ask for what no template does, and what to do instead.
_OTHERWISE: Final = {
    "refusal": "write its text as the content",
    **dict.fromkeys(("prefix", "partial"), "give continue_final_message=True, which leaves the last message open"),
}
_MEDIA: Final = {
    **dict.fromkeys(("image", "images"), "image"),
    **dict.fromkeys(("audio", "audios"), "audio"),
    **dict.fromkeys(("video", "videos"), "video"),
    **dict.fromkeys(("file", "files", "attachments"), "file"),
}


def check_messages(messages: object, modalities: Collection[str] = TEXT_ONLY) -> list[dict[str, Any]]:
    """Return a conversation as fresh, plain data in one form, whatever client wrote it.

    Fields that are None are left out, and so are an empty ``tool_calls`` and ``token_ids``, which templates do not
    read. The arguments of calls are ``Arguments``. The
    older ``function_call`` and the role "function" become a tool call and the role "tool".

    Args:
        messages: A list of dicts, pydantic models or dataclasses with a str ``role`` and a ``content``: a str, a list
            of parts such as ``{"type": "text", "text": "Hi"}``, or, for an assistant that called tools or only
            thought, None. Other fields (``reasoning_content``, ``name``, …) pass through.
        modalities: What the model takes besides "text": "image", "audio", "video", "file".

    Raises:
        ConfigError: A message has the wrong shape, or holds what the model does not take; the error names its index
            and field.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, (list, tuple)):
        raise ConfigError(f"messages must be a list of dicts {_EXAMPLE}, found {shown(cast('object', messages))}")
    found = cast("list[object]", messages)
    if not found:
        raise ConfigError(f"messages is empty; give at least one message {_EXAMPLE}")
    return [_message(message, f"messages[{index}]", modalities) for index, message in enumerate(found)]


def check_tools(tools: object, name: str = "tools") -> list[dict[str, Any]] | None:
    """Return tools (or documents) as fresh, plain data; None and an empty list stay as they are.

    Args:
        tools: JSON schemas, such as ``{"type": "function", "function": {"name": …, "parameters": …}}``.
        name: What to call them in messages.

    Raises:
        ConfigError: Not a list of dicts.
    """
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, (list, tuple)):
        raise ConfigError(f"{name} must be a list of dicts, found {shown(cast('object', tools))}")
    found: list[dict[str, Any]] = []
    for index, tool in enumerate(cast("list[object]", tools)):
        if callable(tool):
            raise ConfigError(
                f"{name}[{index}] is a Python function; describe it as a JSON schema: "
                '{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}'
            )
        fields = plain(tool, f"{name}[{index}]")
        if not isinstance(fields, dict):
            raise ConfigError(f"{name}[{index}] must be a dict, found {shown(tool)}")
        found.append(cast("dict[str, Any]", fields))
    return found


def _message(message: object, name: str, modalities: Collection[str]) -> dict[str, Any]:
    def wrong(field: str, value: Any, expected: str) -> NoReturn:
        raise ConfigError(f'{name}["{field}"] is {shown(value)}; {expected} was expected')

    fields = record(message, name)
    if fields is None:
        raise ConfigError(f"{name} is {shown(message)}; a dict {_EXAMPLE} was expected")
    if "role" not in fields:
        raise ConfigError(f'{name} has no "role"; write {_EXAMPLE}')
    role, content = fields["role"], fields.get("content")
    if not isinstance(role, str) or not role:
        wrong("role", role, 'a str such as "user", "assistant", "system" or "tool"')
    if content is not None and not isinstance(content, (str, list, tuple)):
        wrong("content", content, 'a str or a list such as [{"type": "text", "text": "Hi"}]')
    told = {key: value for key, value in fields.items() if value is not None and key != TOKEN_IDS}
    copied: dict[str, Any] = plain(told, name)
    _check_fields(copied, name, modalities)
    _modernise(copied, name)
    if calls := copied.pop("tool_calls", None):
        copied["tool_calls"] = checked_calls(calls, f'{name}["tool_calls"]')
    reasoning = next((copied[key] for key in REASONING if key in copied), None)
    if reasoning is not None:
        if not isinstance(reasoning, str):
            wrong("reasoning_content", reasoning, "a str")
        copied = {"thinking": reasoning, **copied, "reasoning_content": reasoning}
    if content is None and not (role == "assistant" and (reasoning or "tool_calls" in copied)):
        # An assistant that calls tools or only thinks may say nothing; anybody else forgot something.
        found = "is None" if "content" in fields else "is missing"
        raise ConfigError(f'{name}["content"] {found}; give a str or a list of parts (role {shown(role)})')
    if isinstance(copied.get("content"), list):
        copied["content"] = checked_parts(copied["content"], f'{name}["content"]', modalities)
    return copied


def _check_fields(message: dict[str, Any], name: str, modalities: Collection[str]) -> None:
    """Refuse what would not reach the model."""
    for field, value in message.items():
        if value and field in _OTHERWISE:
            raise ConfigError(f'{name}["{field}"] is {shown(value)}, which chat templates ignore; {_OTHERWISE[field]}')
        if value and field in _MEDIA and _MEDIA[field] not in modalities:
            raise ConfigError(
                f'{name}["{field}"] is {shown(value)}; this model reads {" and ".join(sorted(modalities))} only, leave '
                "it out or load a model that can read it"
            )


def _modernise(message: dict[str, Any], name: str) -> None:
    """Write what OpenAI's interface called functions as the tools that templates know."""
    if message["role"] == "function":
        message["role"] = "tool"
    call = message.pop("function_call", None)
    if call:
        if message.get("tool_calls"):
            raise ConfigError(f"{name} has tool_calls and function_call; give the calls once, as tool_calls")
        message["tool_calls"] = [{"type": "function", "function": call}]
