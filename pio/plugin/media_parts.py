"""Pictures and videos in what callers give: taken out of it, so that a template sees plain marks in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.plain_data import is_record, record

Kind = Literal["image", "video"]
# What clients of several interfaces call parts that are to be seen, and the fields that hold them.
PARTS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
}
# Fields beside a text, in a message or a prompt of its own.
FIELDS: Final[Mapping[str, Kind]] = {"image": "image", "images": "image", "video": "video", "videos": "video"}
_WITHIN: Final = ("url", "path", "data", "base64")
# What is said beside them, and what it is called in the functions of ``pio.media`` that prepare them.
_BUDGET: Final[Mapping[str, str]] = {"max_pixels": "max_pixels", "min_pixels": "min_pixels"}
_SETTINGS: Final[Mapping[Kind, Mapping[str, str]]] = {
    "image": _BUDGET,
    "video": {**_BUDGET, "fps": "fps", "num_frames": "num_frames", "nframes": "num_frames"},
}
_ALL_SETTINGS: Final = frozenset(name for names in _SETTINGS.values() for name in names)
# Fields of several clients that say nothing here: how large others would see it, their caches, formats and numbers.
_IGNORED: Final = frozenset(("type", "detail", "cache_control", "mime_type", "media_type", "id", "uuid"))
_EXAMPLE: Final = '{"type": "image", "image": "photo.jpg"}'


@dataclass(frozen=True, slots=True)
class MediaSource:
    """A picture or a video as it was given.

    Attributes:
        kind: What it is.
        value: A path, bytes, an address, a picture, or a list of them.
        name: Where it stands, for messages.
        settings: What was said beside it, as keyword arguments of ``prepare_picture`` or ``prepare_video``.
    """

    kind: Kind
    value: Any
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


def take_media(prompt: object) -> tuple[Any, list[MediaSource]]:
    """Return a prompt with marks in the place of what is to be seen, and what stood there, in its order.

    Args:
        prompt: Messages of every client; ``{"text": …, "image": …}`` or ``(text, image)``, which are what a user says;
            in the place of a text token ids, which hold a mark for each picture. Others come back as they are.

    Raises:
        ConfigError: A part names no picture, or several, or a field is unknown or has no meaning there.
    """
    found: list[MediaSource] = []
    if isinstance(prompt, tuple) and len(pair := cast("tuple[Any, ...]", prompt)) == 2 and isinstance(pair[0], str):
        prompt = {"text": pair[0], "image": pair[1]}
    fields = cast("Mapping[Any, Any]", prompt) if isinstance(prompt, Mapping) else {"role": None}
    if "role" not in fields:
        fields = _checked(fields)
        said, beside = fields["text"], {name: value for name, value in fields.items() if name != "text"}
        message = _without(
            {"role": "user", **beside, "content": said if isinstance(said, str) else ""}, "prompt", found
        )
        return [message] if isinstance(said, str) else said, found
    if isinstance(prompt, (list, tuple)):
        items = cast("Sequence[Any]", prompt)
        if items and is_record(items[0]):
            return [_without(message, f"messages[{index}]", found) for index, message in enumerate(items)], found
    return cast("Any", prompt), found


def _checked(fields: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Refuse a text with pictures that has no text, or a field that nobody knows."""
    unknown = [name for name in fields if name not in (*FIELDS, *_ALL_SETTINGS, "text")]
    if unknown or not isinstance(fields.get("text"), (str, list, tuple)):
        found = f"the field {shown(unknown[0])}" if unknown else f"text={shown(fields.get('text'))}"
        raise ConfigError(
            'prompt: a dict is {"text": ..., "image": ...}, with "images", "video" or "videos" beside or in the place '
            f"of the picture; found {found}"
        )
    return fields


def _without(message: Any, name: str, found: list[MediaSource]) -> Any:
    fields = record(message, name) if is_record(message) else None
    if fields is None:
        return message
    content, beside = fields.get("content"), [key for key in FIELDS if fields.get(key) is not None]
    if not beside and not isinstance(content, (list, tuple)):
        return message
    parts: list[Any] = []
    _check_settings(fields, [FIELDS[key] for key in beside], name)
    for key in beside:
        value: Any = fields[key]
        several = isinstance(value, (list, tuple)) and (key.endswith("s") or FIELDS[key] == "image")
        settings = _settings(fields, FIELDS[key], name)
        for index, one in enumerate(cast("list[Any]", value) if several else [value]):
            where = f'{name}["{key}"]' + (f"[{index}]" if several else "")
            if isinstance(one, Mapping):  # a part of its own, such as a video with its fps
                own = {**settings, "type": FIELDS[key], **cast("Mapping[str, Any]", one)}
                parts.append(_part(own, where, found))
                continue
            found.append(MediaSource(FIELDS[key], one, where, settings))
            parts.append({"type": FIELDS[key]})
    if isinstance(content, (list, tuple)):
        items = cast("Sequence[Any]", content)
        parts += [_part(part, f'{name}["content"][{index}]', found) for index, part in enumerate(items)]
    elif content is not None:
        parts.append({"type": "text", "text": content})
    dropped = {*beside, *_ALL_SETTINGS} if beside else set[str]()
    kept = {key: value for key, value in fields.items() if key not in dropped}
    return {**kept, "content": parts}


def _part(part: Any, name: str, found: list[MediaSource]) -> Any:
    fields = record(part, name) if is_record(part) else None
    if fields is None:
        return part
    type_name: Any = fields.get("type")
    keys: list[Any] = [type_name] if isinstance(type_name, str) else list(fields)
    named: Kind | None = next((PARTS[key] for key in keys if key in PARTS), None)
    if named is None:
        return part
    given = [(key, fields[key]) for key in (*PARTS, "source", *_WITHIN) if fields.get(key) is not None]
    if len(given) != 1:
        what = "none" if not given else " and ".join(key for key, _ in given)
        raise ConfigError(f"{name} holds {what}; one {named} was expected, such as {_EXAMPLE}")
    key, value = given[0]
    value, inner = _value(value, named, key == "base64", f'{name}["{key}"]')
    _check_fields({n: v for n, v in fields.items() if n != key}, named, name)
    settings = _settings(fields, named, name)
    twice = next((n for n in settings.keys() & inner.keys() if settings[n] != inner[n]), None)
    if twice is not None:
        raise ConfigError(f"{name}: {twice} is {shown(settings[twice])}, and {shown(inner[twice])} within; say it once")
    found.append(MediaSource(named, value, f'{name}["{key}"]', {**settings, **inner}))
    return {"type": named}


def _value(value: object, kind: Kind, encoded: bool, name: str) -> tuple[Any, dict[str, Any]]:
    """What a field holds: a picture, or an object with it inside, as some clients write them; what is said there."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[Any, Any]", value)
        inside = next((key for key in _WITHIN if fields.get(key) is not None), None)
        if inside is not None:
            _check_fields({n: v for n, v in fields.items() if n != inside}, kind, name)
            encoded = inside == "base64" or fields.get("type") == "base64"
            found, inner = _value(fields[inside], kind, encoded, name)
            return found, {**_settings(fields, kind, name), **inner}
    return f"data:;base64,{value}" if encoded and isinstance(value, str) else cast("Any", value), {}


def _check_fields(fields: Mapping[Any, Any], kind: Kind, name: str) -> None:
    """Refuse what nobody would look at; empty fields are those of clients that write down all that there are."""
    for key, value in fields.items():
        if value is None or (isinstance(value, str) and not value) or key in _IGNORED or key in _SETTINGS[kind]:
            continue
        raise ConfigError(
            f"{name} holds {shown(key)}, which has no meaning for one {kind}; leave it out, or write a text as a part "
            f"of its own. Known are {', '.join(_SETTINGS[kind])}"
        )


def _check_settings(fields: Mapping[Any, Any], kinds: Sequence[Kind], name: str) -> None:
    """Refuse what is said beside pictures, but is for videos."""
    for key in _ALL_SETTINGS & fields.keys():
        if kinds and fields[key] is not None and not any(key in _SETTINGS[kind] for kind in kinds):
            raise ConfigError(f"{name} holds {shown(key)} beside pictures, but it is of videos; leave it out")


def _settings(fields: Mapping[Any, Any], kind: Kind, name: str) -> dict[str, Any]:
    """Return what is said of a picture or a video, by the names that ``pio.media`` has for it."""
    found: dict[str, Any] = {}
    for said, ours in _SETTINGS[kind].items():
        if fields.get(said) is None:
            continue
        if ours in found:
            raise ConfigError(f"{name} holds {said} and {ours}, which are the same; say it once")
        found[ours] = fields[said]
    return found
