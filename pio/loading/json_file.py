"""JSON from a model folder: bounded in size, values and depth, and without duplicate keys.

NaN and Infinity, which JSON does not have and Python writes, are read as numbers: whoever uses one checks it. A byte
order mark before the text, as some editors write it, is skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, cast

from pio.errors import CheckpointError
from pio.loading.model_file import read_limited, shown

_MAX_DEPTH = 64
_AGAIN = "download the file again"
_PIECE = 1 << 16  # bytes looked at together


def read_object(path: Path, *, max_bytes: int, max_values: int = 200_000) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
        CheckpointError: The file cannot be read, is larger than ``max_bytes``, or ``parse_object`` refuses it.
    """
    return parse_object(read_limited(path, max_bytes), str(path), max_values=max_values)


def parse_object(data: bytes, where: str, *, max_values: int = 200_000) -> dict[str, Any]:
    """Return the JSON object in ``data``.

    Args:
        data: UTF-8 text.
        where: File name, for messages.
        max_values: How many values the text may hold, because a few bytes of text make a large Python object.

    Raises:
        CheckpointError: Not UTF-8, not JSON, not an object, a key twice, too many values or nested too deeply.
    """

    def fail(problem: str, cause: Exception | None = None) -> NoReturn:
        raise CheckpointError(f"{where} {problem}; {_AGAIN}") from cause

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            fail(f"holds the key {shown(twice)} twice in one object")
        return found

    if more_than(max_values, b",[{", data):
        fail(f"holds more than {max_values} values")
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        fail(f"is not UTF-8 text at byte {error.start} (where an editor wrote it, save it as UTF-8)", error)
    except RecursionError as error:
        fail(f"is nested deeper than {_MAX_DEPTH} levels", error)
    except ValueError as error:
        fail(f"is not valid JSON ({str(error)[:120]})", error)
    if not isinstance(value, dict):
        fail(f"holds {shown(value)}, a JSON object was expected")
    found = cast("dict[str, Any]", value)
    if _deeper_than(found, _MAX_DEPTH):
        fail(f"is nested deeper than {_MAX_DEPTH} levels")
    return found


def more_than(limit: int, characters: bytes, data: bytes) -> bool:
    """Return whether JSON text holds more than ``limit`` of these characters outside its strings.

    Strings, such as names of tensors, may hold any of them. Takes time and memory in proportion to the text.
    """
    if sum(data.count(character) for character in characters) <= limit:
        return False
    text = data.replace(rb"\\", b"").replace(rb"\"", b"")  # what is left of quotes begins and ends strings
    found, inside = 0, 0
    for start in range(0, len(text), _PIECE):
        pieces = text[start : start + _PIECE].split(b'"')
        outside = b"".join(pieces[inside::2])
        inside = (inside + len(pieces) - 1) % 2
        found += sum(outside.count(character) for character in characters)
        if found > limit:
            return True
    return False


def _deeper_than(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(cast("dict[str, object]", item).values())
            elif isinstance(item, list):
                below.extend(cast("list[object]", item))
        if not below:
            return False
        level = below
    return any(isinstance(item, (dict, list)) for item in level)
