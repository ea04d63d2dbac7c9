"""Why a format cannot be used, in the words of its keywords and with the place where they stand."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pio.structured.response_format import ResponseFormat

_KEYS = re.compile(r"Unimplemented keys: \[(.*?)\]")
_FORMAT = re.compile(r"Unknown format: (.*)", re.DOTALL)
# llguidance's own phrases to the word, for its messages also quote the schema: names such as "RateLimit" or "fuel".
_LARGE = re.compile(
    r"schema too large|\) too big \(limit|too many (?:expressions constructed|states:)|Too many items \(limit|"
    r"fuel exhausted|(?:lex|total|check) fuel"
)
# Messages that name no keyword as a schema writes it, and the keywords that they are about.
_ABOUT: Final = {
    "oneOf": ("oneOf",),
    "min/maxProperties": ("minProperties", "maxProperties"),
    "patternProperty": ("patternProperties",),
    "regex parse error": ("pattern", "patternProperties"),
    "Invalid type": ("type",),
    "Resource": ("$ref",),
    "integer range": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number range": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "required property": ("required",),
}
_REMEDIES: Final = {
    "oneOf": "use anyOf, or give each of them a property with another const",
    "format": "leave it out, or write it as a pattern",
    "$ref": "put it below $defs, for nothing is fetched",
}


def refusal(response_format: ResponseFormat, message: str) -> ConfigError:
    """Return the error for what llguidance refuses.

    Args:
        response_format: What was to be compiled.
        message: llguidance's words.
    """
    said = shown(message.strip().splitlines()[0] if message.strip() else "for no reason", 200)
    if _LARGE.search(said):
        return ConfigError(f"response_format is too large to be followed ({said}); give a smaller one")
    if "NoExtension" in message:
        return ConfigError("response_format allows no answer at all; look for what contradicts itself")
    if response_format.kind != "json":
        what = "regular expression" if response_format.kind == "regex" else response_format.kind
        details = shown(" ".join(message.split()), 300)
        return ConfigError(f"response_format: the {what} cannot be used: {details}; correct it")
    keywords = _keywords(message)
    wanted = _FORMAT.search(message)
    places = _places(json.loads(response_format.source), keywords, wanted[1].strip() if wanted else None)
    keyword, place = next(places, (keywords[0] if keywords else "", ""))
    where = f" at {place}" if place else ""
    named = f"{keyword}{where}: " if keyword else ""
    remedy = _REMEDIES.get(keyword, "leave it out, or say it otherwise")
    reason = shown(" ".join(message.split()), 200)
    return ConfigError(f"response_format: {named}an answer cannot be held to this schema ({reason}); {remedy}")


def _keywords(message: str) -> tuple[str, ...]:
    """Return the keywords that a message is about, as a schema writes them."""
    unimplemented = _KEYS.search(message)
    if unimplemented:
        return tuple(json.loads(f"[{unimplemented[1]}]"))
    if _FORMAT.search(message):
        return ("format",)
    return next((keywords for words, keywords in _ABOUT.items() if words in message), ())


def _places(schema: Any, keywords: tuple[str, ...], value: str | None) -> Iterator[tuple[str, str]]:
    """Yield each of the keywords that the schema has, and the JSON pointer of its place; with a value only that."""
    left: list[tuple[str, Any]] = [("#", schema)]
    while left:
        place, found = left.pop(0)
        if isinstance(found, dict):
            for key, inner in cast("dict[str, Any]", found).items():
                below = f"{place}/{key.replace('~', '~0').replace('/', '~1')}"
                named = place.rpartition("/")[2] in ("properties", "$defs", "definitions", "patternProperties")
                if key in keywords and not named and value in (None, inner):
                    yield key, below
                left.append((below, inner))
        elif isinstance(found, list):
            left += ((f"{place}/{index}", inner) for index, inner in enumerate(cast("list[Any]", found)))
