"""Values that a model wrote as text, read as a tool's JSON schema asks for them."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from typing import Any, Final, cast

from pio.text import strict_json
from pio.text.plain_data import MAX_DEPTH
from pio.text.reference import target

_WORDS: Final = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_TYPES: Final = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"))
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_LONGEST_NUMBER: Final = 400
_LONGEST_LITERAL: Final = 20_000  # characters of a value in Python's notation
_MOST_BRACKETS: Final = 200  # in it, for its parser is recursive
_ESCAPED_WELL: Final = re.compile(r"(?:[^\\]|\\[\\'\"abfnrtvxuUN\n])*")  # others make Python warn of them
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_DEEPEST: Final = 8  # references that lead to references
_MOST_LEVELS: Final = MAX_DEPTH - 8  # so that a message with it can be given to a chat template again

Schema = dict[str, Any]


def read_json(text: str) -> tuple[Any, str | None]:
    """Return what JSON text holds, and what is wrong with it: an object that names something twice; the last counts.

    Raw line ends within strings are let through.

    Raises:
        ValueError: It is no JSON, holds a number larger than any that Python has or half a character, or is nested too
            deep.
    """
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs) and not twice:
            counts = Counter(name for name, _ in pairs)
            twice.append(f"{next(name for name in counts if counts[name] > 1)!r} is given twice")
        return found

    try:
        found = strict_json.loads(text, raw_lines=True, make_object=once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not _is_flat(found):
        raise ValueError(f"it is nested deeper than {_MOST_LEVELS} levels")
    if _SURROGATE.search(text) and _has_surrogates(found):
        raise ValueError("it holds a lone surrogate, which is no character")
    return found, twice[0] if twice else None


def _is_flat(value: Any, depth: int = 0) -> bool:
    """Whether a value is not nested too deep."""
    if not isinstance(value, (dict, list)):
        return True
    inner = cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
    return depth < _MOST_LEVELS and all(_is_flat(item, depth + 1) for item in inner)


def _has_surrogates(value: Any) -> bool:
    """Whether half of a character stands alone in a value; no text that reaches a model may have that."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def types_of(schema: Any, root: Schema, depth: int = 0) -> frozenset[str]:
    """Return the JSON types that a schema lets through, as far as it says so; none where it says nothing.

    Args:
        schema: Of one value.
        root: The schema that local references are looked up in.
        depth: How many references led here.
    """
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return frozenset()
    fields = cast("Schema", schema)
    if isinstance(reference := fields.get("$ref"), str):
        return types_of(target(reference, root), root, depth + 1)
    given = fields.get("type")
    if isinstance(given, str):
        return frozenset((given,))
    if isinstance(given, list):
        return frozenset(name for name in cast("list[Any]", given) if isinstance(name, str))
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(ways := fields.get(word), list):
            each = [types_of(way, root, depth + 1) for way in cast("list[Any]", ways)]
            known = [types for types in each if types]
            if len(known) == len(each) or word == "allOf":
                return frozenset[str]().union(*known)
            return frozenset()
    values = cast("list[Any]", fields["enum"]) if isinstance(fields.get("enum"), list) else []
    values = [fields["const"]] if "const" in fields else values
    return frozenset(_type(value) for value in values)


def _type(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return "object"


def fitted(value: Any, types: frozenset[str]) -> tuple[Any, bool]:
    """Return a decoded value, and whether it is of one of these types; any is where none are known.

    A whole number that was written with a fraction, such as 3.0, is an int where only that is asked for.
    """
    name = _type(value)
    if not types or name in types or (name == "integer" and "number" in types):
        return value, True
    if name == "number" and "integer" in types and float(value).is_integer():
        return int(value), True
    return value, False


def in_words(types: frozenset[str]) -> str:
    """Types as they stand in a message."""
    return " or ".join(sorted(types))


def decode(text: str, types: frozenset[str]) -> tuple[Any, str | None]:
    """Return what a model meant by a text that says no type.

    Args:
        text: As it wrote it.
        types: What the schema lets through; none where it does not say.

    Returns:
        The value and None; or the text as it is, and what is wrong with it.
    """
    if types == frozenset(("string",)):
        return text, None
    bare = text.strip()
    for read, problem in _readings(bare, types):
        value, fits = fitted(read, types)
        if fits:
            return value, problem
    if not types or "string" in types:
        return text, None
    shown = bare if len(bare) <= 60 else f"{bare[:57]}..."
    return text, f"found {shown!r}, expected {in_words(types)}"


def _readings(text: str, types: frozenset[str]) -> list[tuple[Any, str | None]]:
    """What a text may mean beside itself, the likeliest first, and what is wrong with each."""
    if text in _WORDS and (text.islower() or (types and "string" not in types)):
        return [(_WORDS[text], None)]
    number = len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text)
    holds = text[:1] in ("{", "[") or (text[:1] == '"' and types & frozenset(("object", "array")))
    if not (number or holds):
        return []
    try:
        found = [read_json(text)]
        if isinstance(found[0][0], str):  # written as JSON twice
            found.append(read_json(found[0][0]))
        return found
    except ValueError:
        return [(value, None) for value in _python(text)]


def _python(text: str) -> list[Any]:
    """What a text means in Python's notation, in which models write dicts now and then."""
    nested = text.count("{") + text.count("[") + text.count("(")
    if len(text) > _LONGEST_LITERAL or nested > _MOST_BRACKETS or not _ESCAPED_WELL.fullmatch(text):
        return []
    try:
        value = ast.literal_eval(text)
        value = json.loads(json.dumps(value, allow_nan=False))
        return [value] if _is_flat(value) and not _has_surrogates(value) else []
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []
