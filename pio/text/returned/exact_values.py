"""Values of calls whose text says no more than they do."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pio.text.calling.toolbox import Toolbox

_MORE: Final = "its text says more than the value does"


class ExactToolbox(Toolbox):
    """Tools whose arguments count only where nothing was passed over when they were read.

    A reader that is kind to models takes a text in Python's notation for the value that it means, without its comments,
    and a number of many digits for the nearest that there is. That is another text than the value is.
    """

    def decode(self, tool: str, parameter: str, text: str) -> tuple[Any, str | None]:
        """Return the value of an argument that says no type, and what is wrong with it: that its text says more."""
        value, problem = super().decode(tool, parameter, text)
        if problem is None and not isinstance(value, (str, bool)) and value is not None and not is_exact(text):
            return value, _MORE
        return value, problem


def is_exact(text: str) -> bool:
    """Say whether a text is a number, a list or an object in JSON, and each number in it is the one that is read.

    Of two values with one name in an object ``read_json`` tells.
    """
    try:
        found = json.loads(text, strict=False, parse_float=_exact)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, (dict, list, int, float))


def _exact(text: str) -> float:
    """Read a number.

    Raises:
        ValueError: It has digits that are not in what was read, of the number or of a power of ten that zero is given.
    """
    number = float(text)
    try:
        same = Decimal(text) == Decimal(repr(number)) and (number != 0 or "e" not in text.lower())
    except InvalidOperation:  # an exponent that no number has
        same = False
    if not same:
        raise ValueError(f"{text} is read as {number!r}")
    return number
