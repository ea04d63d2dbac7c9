"""Conversations as callers write them: checked, and copied into plain data before a template sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown

MAX_DEPTH = 64
# Under these names messages carry reasoning; templates read the first, a few older ones the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")
_EXAMPLE = 'such as {"role": "user", "content": "Hi"}'


def check_messages(messages: object) -> list[dict[str, Any]]:
    """Return a conversation as fresh, plain data.

    Args:
        messages: A list of dicts with a str ``role`` and a ``content``: a str, a list of parts such as
            ``{"type": "text", "text": "Hi"}``, or, for an assistant that called tools, None. Other keys
            (``tool_calls``, ``reasoning_content``, ``name``, …) pass through.

    Raises:
        ConfigError: A message has the wrong shape; the error names its index and field.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, (list, tuple)):
        raise ConfigError(f"messages must be a list of dicts {_EXAMPLE}, found {shown(cast('object', messages))}")
    found = cast("list[object]", messages)
    if not found:
        raise ConfigError(f"messages is empty; give at least one message {_EXAMPLE}")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(found)]


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
    for index, tool in enumerate(cast("list[object]", tools)):
        if callable(tool):
            raise ConfigError(
                f"{name}[{index}] is a Python function; describe it as a JSON schema: "
                '{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}'
            )
        if not isinstance(tool, Mapping):
            raise ConfigError(f"{name}[{index}] must be a dict, found {shown(tool)}")
    return cast("list[dict[str, Any]]", plain(cast("object", tools), name))


def plain(value: object, name: str, depth: int = 0) -> Any:
    """Return a copy of ``value`` made of nothing but dict, list, str, int, float, bool and None.

    A template can then reach no method but those of these types.

    Raises:
        ConfigError: Something else is in it, or it is nested deeper than 64 levels.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # str.__str__ and its like undo subclasses, such as enums
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if depth >= MAX_DEPTH:
        raise ConfigError(f"{name} is nested deeper than {MAX_DEPTH} levels (or holds itself); give flatter data")
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return {_key(key, name): plain(item, f"{name}[{shown(key)}]", depth + 1) for key, item in pairs.items()}
    if isinstance(value, (list, tuple)):
        items = cast("list[object]", value)
        return [plain(item, f"{name}[{index}]", depth + 1) for index, item in enumerate(items)]
    raise ConfigError(
        f"{name} is a {type(value).__name__}; only str, int, float, bool, None, list and dict can be given "
        "to a chat template, convert it first"
    )


def flatten_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the conversation with each list of text parts joined into one str.

    Raises:
        ConfigError: A part is not text.
    """
    return [
        {**message, "content": _joined(message["content"], index)} if "content" in message else message
        for index, message in enumerate(messages)
    ]


def _joined(content: Any, message: int) -> Any:
    if not isinstance(content, list):
        return content
    parts = cast("list[dict[str, Any]]", content)
    for index, part in enumerate(parts):
        if part["type"] != "text":
            raise ConfigError(
                f'messages[{message}]["content"][{index}] has the type {shown(part["type"])}; this model reads '
                "text only, leave the part out or load a model that can read it"
            )
    return "".join(part["text"] for part in parts)


def _key(key: object, name: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise ConfigError(f"{name} has the key {shown(key)}, a str was expected; write keys as strings")


def _message(message: object, name: str) -> dict[str, Any]:
    def wrong(field: str, value: Any, expected: str) -> NoReturn:
        raise ConfigError(f'{name}["{field}"] is {shown(value)}; {expected} was expected')

    if not isinstance(message, Mapping):
        raise ConfigError(f"{name} is {shown(message)}; a dict {_EXAMPLE} was expected")
    given = cast("Mapping[object, object]", message)
    role = given.get("role")
    if "role" not in given:
        raise ConfigError(f'{name} has no "role"; write {_EXAMPLE}')
    if not isinstance(role, str) or not role:
        wrong("role", role, 'a str such as "user", "assistant", "system" or "tool"')
    if given.get("content") is None:
        # An assistant that calls tools or only thinks may say nothing; anybody else forgot something.
        if role != "assistant" or not any(given.get(key) for key in ("tool_calls", *_REASONING)):
            found = "is None" if "content" in given else "is missing"
            raise ConfigError(f'{name}["content"] {found}; give a str or a list of parts (role {shown(role)})')
    elif not isinstance(given["content"], (str, list, tuple)):
        wrong("content", cast("Any", given["content"]), 'a str or a list such as [{"type": "text", "text": "Hi"}]')
    calls = given.get("tool_calls")
    if calls is not None and not (
        isinstance(calls, (list, tuple)) and all(isinstance(call, Mapping) for call in cast("list[object]", calls))
    ):
        wrong("tool_calls", calls, "a list of dicts")
    copied = cast("dict[str, Any]", plain(given, name))
    if isinstance(copied.get("content"), list):
        _check_parts(cast("list[object]", copied["content"]), name)
    reasoning = next((copied[key] for key in _REASONING if copied.get(key) is not None), None)
    if reasoning is not None:
        if not isinstance(reasoning, str):
            wrong("reasoning_content", reasoning, "a str")
        copied = {"thinking": reasoning, **copied, "reasoning_content": reasoning}
    return copied


def _check_parts(parts: list[object], name: str) -> None:
    for index, part in enumerate(parts):
        where = f'{name}["content"][{index}]'
        if not isinstance(part, dict):
            raise ConfigError(f'{where} is {shown(part)}; a dict such as {{"type": "text", "text": "Hi"}} was expected')
        fields = cast("dict[str, object]", part)
        kind = fields.get("type")
        if not isinstance(kind, str):
            raise ConfigError(f'{where}["type"] is {shown(kind)}; a str such as "text" was expected')
        if kind == "text" and not isinstance(fields.get("text"), str):
            raise ConfigError(f'{where}["text"] is {shown(fields.get("text"))}; a str was expected')
