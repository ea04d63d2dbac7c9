"""Sampling fields that cannot be used, in words: what was found, and what each takes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pio.errors import ConfigError

Fields: TypeAlias = Mapping[str, FieldInfo]

# What cannot be read off a field's numeric bounds.
_ALLOWED: Final = {
    "logit_bias": "a dict of token id to a number from -100 to 100",
    "stop": "a non-empty string or a list of them",
    "stop_token_ids": "a list of token ids",
    "suppress_tokens": "a list of token ids",
    "begin_suppress_tokens": "a list of token ids",
    "bad_words_ids": "a list of non-empty lists of token ids",
    "cache_salt": "a non-empty text",
}


def check_known(given: Mapping[Any, object], known: Fields) -> None:
    """Refuse the first name that is no field.

    Raises:
        ConfigError: There is one; the message has the field that it may be meant for.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name)[:64], known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(f"unknown sampling field {short(name)}{hint} The fields are {', '.join(known)}.")


def explained(error: ValidationError, data: object, known: Fields) -> str:
    """Name each field that is wrong, what was found and what it takes."""
    fields = cast("dict[str, object]", data) if isinstance(data, dict) else {}
    seen: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        name = str(item["loc"][0]) if item["loc"] else "sampling parameters"
        found = fields.get(name, item["input"])
        seen.setdefault(name, f"{name}={short(found)} cannot be used: expected {_allowed(name, known)}")
    return "; ".join(seen.values())


def short(value: object) -> str:
    """Return a value as it stands in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _allowed(name: str, known: Fields) -> str:
    """What a field takes, in words."""
    field = known.get(name)
    if field is None:
        return "a dict of sampling fields"
    if name in _ALLOWED:
        return _ALLOWED[name]
    if field.annotation is bool:
        return "True or False"
    words = "a whole number" if "int" in str(field.annotation) else "a number"
    lower, upper = -math.inf, math.inf
    for bound in field.metadata:
        if (above := getattr(bound, "gt", None)) is not None:
            words += f" above {above}"
        lower = getattr(bound, "ge", lower)
        upper = getattr(bound, "le", upper)
    if lower > -math.inf:
        words += f" from {lower}" if upper < math.inf else f" of at least {lower}"
    if upper < math.inf:
        words += f" to {upper}" if lower > -math.inf else f" and at most {upper}"
    return words + (" or None" if field.default is None else "")
