"""The methods that a chat template may call on text, lists and dicts, each with what it costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from jinja2 import Undefined
from markupsafe import Markup

from pio.text.template.budget import INTEGER_BITS, Budget, TemplateLimit, is_dict, is_sequence, small

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_CONVERSION = re.compile(r"%(?:\([^)]{0,200}\))?[#0\- +]*(\*|\d+)?(?:\.(\*|\d+)?)?")
ESCAPED = 6  # characters that one can become in Markup or when written as JSON or repr


def factor(*values: object) -> int:
    """Return how many characters one may become: more than one where Markup escapes what it meets."""
    return ESCAPED if any(isinstance(value, Markup) for value in values) else 1


def find(budget: Budget, text: str, wanted: Any = "", *_: Any, **__: Any) -> None:
    """Take a search; CPython compares up to about 100 characters a place and turns to a linear method beyond."""
    budget.spend(1 + (len(text) * min(_length(wanted), 128) >> 10))


def find_last(budget: Budget, text: str, wanted: Any = "", *_: Any, **__: Any) -> None:
    """Take a search from the end, which has no linear method."""
    budget.spend(1 + (len(text) * _length(wanted) >> 10))


def strip(budget: Budget, text: str, characters: Any = None) -> None:
    """Take strip, lstrip or rstrip: each character is looked up in the given ones."""
    budget.text(len(text))
    budget.spend(len(text) * _length(characters) >> 10)


def cased(budget: Budget, text: str, *_: Any) -> None:
    """Take a change of case; one character becomes three at most."""
    budget.text(3 * len(text))


def read(budget: Budget, text: str, *others: Any, **_: Any) -> None:
    """Take one pass over the text and the arguments."""
    budget.walk(text, *others)


def copied(budget: Budget, text: str, *_: Any) -> None:
    """Take a copy, or two parts, of the text."""
    budget.text(len(text) + 256)


def replace(budget: Budget, text: str, old: Any, new: Any, count: Any = -1) -> None:
    """Take replace, whose result may be longer by any factor."""
    find(budget, text, old)
    times = text.count(old) if isinstance(old, str) else 0
    if isinstance(count, int) and count >= 0:
        times = min(times, count)
    budget.text((len(text) + times * _length(new)) * factor(text, new))


def split(budget: Budget, text: str, sep: Any = None, maxsplit: Any = -1) -> None:
    """Take split; every part is an object of its own."""
    find(budget, text, sep)
    _parts(budget, text, sep, maxsplit)


def split_last(budget: Budget, text: str, sep: Any = None, maxsplit: Any = -1) -> None:
    """Take rsplit."""
    find_last(budget, text, sep)
    _parts(budget, text, sep, maxsplit)


def part(budget: Budget, text: str, sep: Any) -> None:
    """Take partition."""
    find(budget, text, sep)
    copied(budget, text)


def part_last(budget: Budget, text: str, sep: Any) -> None:
    """Take rpartition."""
    find_last(budget, text, sep)
    copied(budget, text)


def split_lines(budget: Budget, text: str, keepends: Any = False) -> None:
    """Take splitlines."""
    budget.spend(len(text) >> 8)
    budget.text(len(text) + 64 * sum(text.count(end) for end in LINE_ENDS))


def pad(budget: Budget, text: str, width: Any, fill: Any = " ") -> None:
    """Take ljust, rjust, center or zfill."""
    budget.text(max(len(text), width if isinstance(width, int) else 0))


def expand_tabs(budget: Budget, text: str, tabsize: Any = 8) -> None:
    """Take expandtabs."""
    budget.text(len(text) + text.count("\t") * max(0, small(tabsize, 64, "a tab of")))


def join(budget: Budget, text: str, items: list[Any]) -> None:
    """Take join."""
    total = sum(_length(item) for item in items) + len(text) * len(items)
    budget.text(total * factor(text, *items))


def percent(budget: Budget, text: str, values: object) -> None:
    """Take ``text % values``; a width in the text can ask for any number of spaces."""
    if len(text) > 1 << 16:
        raise TemplateLimit("it formats with a text of more than 65536 characters")
    conversions = _CONVERSION.findall(text)
    for numbers in conversions:
        for number in numbers:
            if number == "*" or len(number) > 4:
                raise TemplateLimit(f"it asks for a width of {number[:20]} in a format")
            budget.text(int(number or 0))
    times = len(conversions) if is_dict(values) else 2
    budget.text(len(text) + times * ESCAPED * 2 * budget.size(values))


def format_width(budget: Budget, spec: str) -> None:
    """Take the widths in the part of a ``str.format`` field after the colon."""
    for number in re.findall(r"\d+", spec[:1000]):
        if len(number) > 4:
            raise TemplateLimit(f"it asks for a width of {number[:20]} in a format")
        budget.text(int(number))
    if len(spec) > 1000:
        raise TemplateLimit("it formats with a field of more than 1000 characters")


def add(budget: Budget, left: Any, right: Any) -> None:
    """Take ``+``."""
    if isinstance(left, str) and isinstance(right, str):
        budget.text((len(left) + len(right)) * factor(left, right))
    elif is_sequence(left) and is_sequence(right):
        budget.items(len(left) + len(right))
    elif not all(isinstance(value, (int, float, str, list, tuple, Undefined)) for value in (left, right)):
        raise TypeError(f"cannot add {type(left).__name__} and {type(right).__name__}")


def multiply(budget: Budget, left: Any, right: Any) -> None:
    """Take ``*``."""
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str) and isinstance(times, int):
            budget.text(len(value) * max(0, times))
        elif is_sequence(value) and isinstance(times, int):
            budget.items(len(value) * max(0, times))


def power(budget: Budget, left: Any, right: Any) -> None:
    """Take ``**``."""
    if isinstance(left, int) and isinstance(right, int):
        small(left.bit_length() * abs(right), INTEGER_BITS, "a power of so many bits:")


def modulo(budget: Budget, left: Any, right: Any) -> None:
    """Take ``%``."""
    if isinstance(left, str):
        percent(budget, left, right)


def _free(budget: Budget, value: Any) -> None:
    """Take nothing: the method looks at no item."""


def _copy(budget: Budget, value: Any) -> None:
    budget.items(len(value))


def _get(budget: Budget, value: Any, key: Any, *_: Any) -> None:
    budget.walk(key)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) or is_sequence(value) else 1


def _parts(budget: Budget, text: str, sep: Any, maxsplit: Any) -> None:
    parts = text.count(sep) if isinstance(sep, str) and sep else (len(text) + 1) // 2
    if isinstance(maxsplit, int) and maxsplit >= 0:
        parts = min(parts, maxsplit)
    budget.text(len(text) + 64 * (parts + 1))


Guard = Callable[..., None]
_CHANGES = "it would change data, which the caller or other parts of the template still use"
_BYTES = "bytes are no text"

TEXT: Final[dict[str, Guard]] = {
    **dict.fromkeys(("capitalize", "casefold", "lower", "swapcase", "title", "upper"), cased),
    **dict.fromkeys(("count", "find", "index"), find),
    **dict.fromkeys(("rfind", "rindex"), find_last),
    **dict.fromkeys(("strip", "lstrip", "rstrip"), strip),
    **dict.fromkeys(("startswith", "endswith"), read),
    **dict.fromkeys(("removeprefix", "removesuffix"), copied),
    **dict.fromkeys(("ljust", "rjust", "center", "zfill"), pad),
    **dict.fromkeys(
        ("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric")
        + ("isprintable", "isspace", "istitle", "isupper"),
        read,
    ),
    "expandtabs": expand_tabs,
    "format": _free,  # the sandbox replaces it
    "format_map": _free,
    "join": join,
    "partition": part,
    "replace": replace,
    "rpartition": part_last,
    "rsplit": split_last,
    "split": split,
    "splitlines": split_lines,
}
MAPPING: Final[dict[str, Guard]] = {"copy": _copy, "get": _get, "items": _free, "keys": _free, "values": _free}
SEQUENCE: Final[dict[str, Guard]] = {"copy": _copy, "count": read, "index": read}
# The public methods that are left out.
UNAVAILABLE: Final[dict[type, dict[str, str]]] = {
    str: {"encode": _BYTES, "maketrans": "use replace", "translate": "use replace"},
    dict: dict.fromkeys(("clear", "fromkeys", "pop", "popitem", "setdefault", "update"), _CHANGES),
    list: dict.fromkeys(("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"), _CHANGES),
}
BINARY: Final[dict[str, Guard]] = {"+": add, "*": multiply, "**": power, "%": modulo}


def guards(owner: object) -> dict[str, Guard]:
    """Return the methods of a value that a template may call."""
    if isinstance(owner, str):
        return TEXT
    if isinstance(owner, dict):
        return MAPPING
    return SEQUENCE if isinstance(owner, (list, tuple)) else {}


def unavailable(owner: object, name: str) -> str | None:
    """Return why a value's method cannot be called, or None where it is no such method."""
    return next((reasons.get(name) for kind, reasons in UNAVAILABLE.items() if isinstance(owner, kind)), None)
