"""How much work a chat template may do: counted before it is done, so that no template can run away.

Python offers no way to stop a thread, so a template that has started must stop by itself. `template_sandbox` compiles
templates such that every loop turn, call, operator, filter and written piece first takes its cost from one Budget, and
everything outside a known list is refused. Work between two such points is bounded by the length of the template, and
the work of one point by the sizes it was given, which are part of the cost. A budget is a count, not a clock: the same
template and messages give the same answer on a slow machine as on a fast one.
"""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterable, KeysView, MappingView, ValuesView
from itertools import chain
from typing import Any, Final, TypeGuard

from pio.text.arguments import Arguments, given_text

# What every rendering is granted, however small the conversation. A step takes half a microsecond to four.
STEPS: Final = 250_000
CHARACTERS: Final = 16 << 20
# Some templates look back over all messages for each of them, or add each to a text that grows. What is granted for
# that grows with the square of the conversation, up to what takes a few seconds and a hundred megabytes.
_MOST_STEPS: Final = 4_000_000
_MOST_CHARACTERS: Final = 96 << 20
INTEGER_BITS: Final = 4096
_ITEMS: Final = type(dict[Any, Any]().items())
_SLOT = 8  # what an element costs where the container is copied
_CONTAINER = 256  # what a container costs beside its elements
_EMPTY = 64


class TemplateLimit(Exception):
    """The template asks for one value that is larger than any chat needs."""


class BudgetSpent(TemplateLimit):
    """All that was granted for this conversation is used up, which a long one can do with an honest template."""


class Budget:
    """What is left to one rendering; it grows with the caller's own input, which is not the template's doing.

    The size of a value is about the number of characters that it takes when written. Containers remember theirs, so
    that a list that holds one list twice, and that one another twice, and so on, is known to be huge although it is
    small in memory.
    """

    __slots__ = ("_granted", "_sizes", "characters", "depth", "steps")

    def __init__(self, given: Iterable[object]) -> None:
        """Start with what is granted for these inputs, which are plain data."""
        self.depth = 0
        self.steps = self.characters = 1 << 62
        # Holding the containers keeps their ids from being used again.
        self._sizes: dict[int, tuple[object, int]] = {}
        size = sum(self.size(value) for value in given)
        count = len(self._sizes)
        steps = STEPS + 200 * count + (size >> 4) + min(count * count + 4 * size, _MOST_STEPS)
        characters = CHARACTERS + 64 * size + min(size * size >> 6, _MOST_CHARACTERS)
        self.steps, self.characters = self._granted = steps, characters

    def spend(self, steps: int) -> None:
        """Take steps."""
        self.steps -= steps
        if self.steps < 0:
            raise BudgetSpent(f"it works more than {self._granted[0]} steps")

    def text(self, characters: int) -> None:
        """Take a string of that many characters."""
        self.characters -= characters
        self.spend(1 + (characters >> 10))
        if self.characters < 0:
            raise BudgetSpent(f"it makes more than {self._granted[1]} characters")

    def items(self, count: int) -> None:
        """Take a new container of that many items."""
        self.text(_CONTAINER + _SLOT * count if count else _EMPTY)

    def walk(self, *values: object) -> None:
        """Take one pass over everything in these values, as a comparison or a hash does."""
        for value in values:
            self.spend(1 + (len(value) >> 10 if isinstance(value, str) else self.size(value) >> 6))

    def size(self, value: object) -> int:
        """Return about how many characters it takes to write a value."""
        if isinstance(value, str):
            return 16 + len(value)
        if isinstance(value, int):
            return 16 + (integer(value).bit_length() >> 1)
        if is_sequence(value) or is_dict(value) or is_view(value):
            if not value:  # nothing to remember, and frequent, as in ``message.tool_calls or []``
                return 16
            known = self._sizes.get(id(value))
            return known[1] if known is not None else self._measure(value)
        return 32

    def made(self, value: Any) -> Any:
        """Take a value that was just made, remember its size, and return it."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, int):
            integer(value)
        elif is_sequence(value) or is_dict(value) or is_view(value):
            self.items(len(value))
            self.size(value)
        return value

    def listed(self, value: Any) -> list[Any]:
        """Return the items of any iterable as a new list; characters of a str are items too."""
        count = operator.length_hint(value, 0)
        self.text(_CONTAINER + 80 * count)
        self.spend(count)
        return list(value)

    def _measure(self, value: Any) -> int:
        self.spend(1 + (len(value) >> 3))
        size = 16 + 4 * len(value) + sum(map(self.size, _parts(value)))
        if isinstance(value, Arguments):  # may write itself as a longer text
            size += len(given_text(value) or "")
        if size > self.characters:
            raise BudgetSpent("it nests lists into each other until they are too large to write")
        self._sizes[id(value)] = (value, size)
        return size


def _parts(value: Any) -> Iterable[Any]:
    """Return what a container holds: keys and values of a dict or its items, which come in pairs made anew."""
    if is_dict(value):
        return chain.from_iterable(value.items())
    return chain.from_iterable(value) if type(value) is _ITEMS else value


def integer(value: int) -> int:
    """Return an integer unless it has more digits than a chat can need."""
    if value.bit_length() > INTEGER_BITS:
        raise TemplateLimit(f"it makes an integer of more than {INTEGER_BITS} bits")
    return value


def small(value: Any, limit: int, name: str) -> Any:
    """Return a width, count or precision unless it is an integer beyond the limit."""
    if isinstance(value, int) and abs(value) > limit:
        raise TemplateLimit(f"it asks for {name} {value if abs(value) < 1 << 64 else 'beyond 64 bits'}")
    return value


def is_sequence(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Say whether a value is a list or a tuple."""
    return isinstance(value, (list, tuple))


def is_view(value: object) -> TypeGuard[MappingView]:
    """Say whether a value is what ``keys``, ``values`` or ``items`` of a dict give."""
    return isinstance(value, (KeysView, ValuesView, ItemsView))


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    """Say whether a value is a dict."""
    return isinstance(value, dict)
