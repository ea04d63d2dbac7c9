"""Where a text has what another one ends with: an index of its places by the tokens before them."""

from __future__ import annotations

import sys
from array import array
from typing import Final

RUN: Final = 3  # tokens before a place that it is known by
FEW: Final = 8  # places that are indexed one by one, which has nothing to prepare
LONGEST: Final = 32  # equal tokens that are counted; more say nothing more
CANDIDATES: Final = 5  # places that a search looks at, the latest first
MOST_HEADS: Final = 1 << 18  # of a table; longer texts have longer chains
BYTES: Final = 14  # of a token that is indexed, with the token: three numbers, and what arrays have in reserve


def index_bytes(room: int, places: int, tokens: int = 0) -> int:
    """Return the bytes of an index at most.

    Args:
        room: It is made for so many places.
        places: It comes to have.
        tokens: Of its text, where that is its own.
    """
    return 4 * (_heads(room) + tokens) + 5 * places + 512  # a chain grows by sixteenths; arrays have heads


def _heads(room: int) -> int:
    """How many last places a table has."""
    return 1 << (max(min(room, MOST_HEADS), 64) - 1).bit_length()


class SuffixIndex:
    """The places of a text, each known by the three tokens before it.

    A table of hashes has the last place behind each such run, and a chain leads from every place to the one before it
    with the same hash. Texts grow at their end, so a token costs the same however long the text is. Runs whose hashes
    are equal by chance share a chain; that they differ is seen when they are compared.

    Attributes:
        tokens: The text. Who owns it may append to it.
    """

    __slots__ = ("_chain", "_first", "_heads", "_mask", "tokens")

    def __init__(self, tokens: array[int], first: int, room: int) -> None:
        """Index nothing yet.

        Args:
            tokens: The text, as far as it is there.
            first: The first place that is wanted; the tokens before it are looked at only behind it.
            room: How many places there may be; with more, searches find less.
        """
        self.tokens = tokens
        size = _heads(room)
        self._heads = array("i", bytes(4 * size))  # 0 where there is none: no place has so few tokens before it
        self._mask = size - 1
        self._first = max(first, RUN)
        self._chain = array("i")

    def __len__(self) -> int:
        """How many places are indexed."""
        return len(self._chain)

    @property
    def behind(self) -> int:
        """How many places have come that are not indexed."""
        return max(0, len(self.tokens) + 1 - self._first - len(self._chain))

    def extend(self, most: int = sys.maxsize) -> int:
        """Index the places that have come since, the one behind the last token too; return how many.

        Args:
            most: But at most so many.
        """
        tokens, heads, mask, chain = self.tokens, self._heads, self._mask, self._chain
        before = len(chain)
        place = self._first + before
        end = min(len(tokens) + 1, place + most)
        if end - place > FEW:
            for run in zip(*(tokens[place - back : end - back] for back in range(RUN, 0, -1)), strict=True):
                at = hash(run) & mask
                chain.append(heads[at])
                heads[at] = place
                place += 1
        while place < end:
            at = hash((tokens[place - 3], tokens[place - 2], tokens[place - 1])) & mask
            chain.append(heads[at])
            heads[at] = place
            place += 1
        return len(chain) - before

    def longest(self, context: array[int], least: int = RUN - 1) -> tuple[int, int]:
        """Return the place before which most tokens are those that a context ends with, and how many.

        Args:
            context: It may be the text itself; a place with nothing behind it is no answer.
            least: A place with so many is no answer either.

        Returns:
            The place, among equals the latest, and the number of tokens, which is counted up to ``LONGEST``; 0 and
            ``least`` where there is none among those that are looked at.
        """
        best, length, end = 0, least, len(context)
        if end < RUN:
            return best, length
        tokens, chain, first = self.tokens, self._chain, self._first
        place, there = self._heads[hash((context[-3], context[-2], context[-1])) & self._mask], len(tokens)
        for _ in range(CANDIDATES):
            if not place:
                break
            if place < there:
                found = _equal(tokens, place, context, end)
                if found > length:
                    best, length = place, found
                    if found == LONGEST:
                        break
            place = chain[place - first]
        return best, length


def _equal(tokens: array[int], place: int, context: array[int], end: int) -> int:
    """How many tokens before a place of one text are those before a place of another."""
    most = min(place, end, LONGEST)
    for count in range(1, most + 1):
        if tokens[place - count] != context[end - count]:
            return count - 1
    return most
