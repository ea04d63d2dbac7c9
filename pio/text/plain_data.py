"""What callers give to a chat template, copied into data that has no methods but those of Python's own types."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.arguments import Arguments, given_text

MAX_DEPTH = 64


def is_record(value: object) -> bool:
    """Say whether a value has named fields: a mapping, a pydantic model or a dataclass, such as a message."""
    if isinstance(value, type):
        return False
    return isinstance(value, Mapping) or dataclasses.is_dataclass(value) or hasattr(value, "model_dump")


def record(value: object, name: str) -> Mapping[Any, object] | None:
    """Return the fields of a mapping, a pydantic model or a dataclass, or None where it is none of them.

    Raises:
        ConfigError: A model cannot be written as data.
    """
    if isinstance(value, Mapping):
        return cast("Mapping[Any, object]", value)
    if not is_record(value):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    try:
        return record(cast("Any", value).model_dump(mode="json"), name)
    except Exception as error:
        raise ConfigError(f"{name} is a {type(value).__name__} that cannot be written as JSON: {error}") from error


def plain(value: object, name: str, depth: int = 0) -> Any:
    """Return a copy of ``value`` made of nothing but dict, list, str, int, float, bool and None.

    A template can then reach no method but those of these types. Pydantic models and dataclasses become dicts;
    ``Arguments``, which come from here, stay what they are.

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
    pairs = record(value, name)
    if pairs is not None:
        copied = {_key(key, name): plain(item, f"{name}[{shown(key)}]", depth + 1) for key, item in pairs.items()}
        return Arguments(copied, given_text(value)) if isinstance(value, Arguments) else copied
    if isinstance(value, (list, tuple)):
        items = cast("list[object]", value)
        return [plain(item, f"{name}[{index}]", depth + 1) for index, item in enumerate(items)]
    raise ConfigError(
        f"{name} is a {type(value).__name__}; only str, int, float, bool, None, list, dict, pydantic models and "
        "dataclasses can be given to a chat template, convert it first"
    )


def _key(key: object, name: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise ConfigError(f"{name} has the key {shown(key)}, a str was expected; write keys as strings")
