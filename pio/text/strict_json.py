"""JSON as its standard has it: Python's own reader takes numbers that JSON has not, and makes infinite ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

from pio.loading.model_file import shown


def loads(
    text: str | bytes,
    *,
    raw_lines: bool = False,
    make_object: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Return what JSON text holds.

    Args:
        text: A text, or its bytes in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.
        raw_lines: Whether strings may hold line ends and other control characters as they are.
        make_object: Makes each object of its names and values; by default a dict, where the last of two counts.

    Raises:
        ValueError: It is no JSON, such as NaN and Infinity; or a number is larger than any that Python has, such as
            1e999, which would be infinite.
        RecursionError: It is nested too deep.
    """
    hooks: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite}
    return json.loads(text, strict=not raw_lines, object_pairs_hook=make_object, **hooks)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{shown(text)} is larger than any number")
    return number
