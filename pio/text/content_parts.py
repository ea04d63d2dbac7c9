"""The content of a message: one text, or a list of parts, each of them text, a picture, sound, video or a file."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown

TEXT_ONLY: Final = frozenset(("text",))
# What clients of several interfaces call their parts.
_KINDS: Final = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), "audio"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
    **dict.fromkeys(("file", "file_url", "input_file", "document"), "file"),
}
# Parts that stand for a field of the message, or for a message of their own, in the interfaces they come from.
_OTHERWISE: Final = {
    "refusal": "write its text as a part of the type 'text'",
    **dict.fromkeys(("thinking", "reasoning"), "give its text as the message's reasoning_content"),
    **dict.fromkeys(("tool_use", "tool_call", "function_call"), "give it in the message's tool_calls"),
    **dict.fromkeys(("tool_result", "function_call_output"), 'give it as a message of the role "tool"'),
}


def checked_parts(content: list[Any], name: str, modalities: Collection[str]) -> list[dict[str, Any]]:
    """Return the parts of a content, text among them as ``{"type": "text", "text": …}``.

    Args:
        content: Plain data.
        name: Where it stands, for messages.
        modalities: What the model takes, of "text", "image", "audio", "video" and "file".

    Raises:
        ConfigError: A part is malformed, or of a kind that the model does not take.
    """
    return [_part(part, f"{name}[{index}]", modalities) for index, part in enumerate(content)]


def _part(part: object, name: str, modalities: Collection[str]) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise ConfigError(f'{name} is {shown(part)}; a dict such as {{"type": "text", "text": "Hi"}} was expected')
    fields = {key: value for key, value in cast("dict[str, Any]", part).items() if value is not None}
    # Some clients leave the type out where a picture's own key says it.
    found = fields.get("type", next((key for key in fields if _KINDS.get(key, "text") != "text"), None))
    if not isinstance(found, str):
        raise ConfigError(f'{name}["type"] is {shown(fields.get("type"))}; a str such as "text" was expected')
    if found in _OTHERWISE:
        raise ConfigError(f"{name} has the type {shown(found)}, which chat templates ignore; {_OTHERWISE[found]}")
    kind = _KINDS.get(found)
    if kind is None or kind not in modalities:
        raise ConfigError(
            f"{name} has the type {shown(found)}; this model reads {' and '.join(sorted(modalities))} only, "
            "leave the part out or load a model that can read it"
        )
    if kind != "text":
        return fields
    if not isinstance(fields.get("text"), str):
        raise ConfigError(f'{name}["text"] is {shown(fields.get("text"))}; a str was expected')
    return {**fields, "type": "text"}


def joined(parts: list[dict[str, Any]]) -> str | None:
    """Return the texts of parts as one text, or None where one of them is no text."""
    if any(part.get("type") != "text" for part in parts):
        return None
    return "".join(part["text"] for part in parts)
