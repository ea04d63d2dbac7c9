"""Earlier answers, where later ones look for what they may go on with; each caller's apart."""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final

from pio.engine.drafts.suffix_index import BYTES, SuffixIndex

PART: Final = 1 << 15  # tokens of a part
PARTS: Final = 2  # of a caller, so that a search ends soon
LEAST: Final = 1 << 6  # tokens of a part; a history with smaller ones is none
END: Final = -1  # stands behind each answer, and is no token
SHORTEST: Final = 8  # tokens of an answer that is worth keeping


class AnswerHistory:
    """The last answers of each caller, in parts that are dropped whole, the oldest first.

    Callers are told apart by their ``cache_salt``, those without one are one caller.
    """

    def __init__(self, nbytes: int) -> None:
        """Keep nothing yet.

        Args:
            nbytes: What all parts together may take.
        """
        tokens = nbytes // BYTES
        size = min(PART, 1 << max(tokens // PARTS, 1).bit_length() - 1)
        self._size = size if size >= LEAST else 0
        self._most = tokens // size
        self._parts: dict[str | None, list[SuffixIndex]] = {}  # of a caller, the newest first
        self._order: deque[str | None] = deque()  # whose part was begun when, the oldest first
        self._growing: deque[SuffixIndex] = deque()  # parts with answers that are not indexed to their end

    def of(self, salt: str | None) -> list[SuffixIndex]:
        """Return the parts of a caller, the newest first."""
        return self._parts.get(salt) or []

    def add(self, salt: str | None, answer: array[int]) -> None:
        """Keep an answer, of one that is longer than a part its end; it is found as far as ``extend`` has come."""
        if not self._size or len(answer) < SHORTEST:
            return
        parts = self._parts.setdefault(salt, [])
        if not parts or len(parts[0].tokens) + len(answer) >= self._size:
            self._begin(salt, parts, len(answer))
        newest = parts[0]
        newest.tokens.extend(answer[-(self._size - 1) :])
        newest.tokens.append(END)
        if newest not in self._growing:
            self._growing.append(newest)

    def extend(self, most: int) -> None:
        """Index what was added, but at most so many places."""
        while self._growing and most > 0:
            most -= self._growing[0].extend(most)
            if not self._growing[0].behind:
                self._growing.popleft()

    def clear(self) -> None:
        """Forget all of them."""
        self._parts.clear()
        self._order.clear()
        self._growing.clear()

    def _begin(self, salt: str | None, parts: list[SuffixIndex], length: int) -> None:
        """Begin a part, in the place of the caller's oldest or of the oldest of all where there are too many."""
        if len(parts) == PARTS:
            self._order.remove(salt)
            self._drop(parts)
        elif len(self._order) == self._most:
            oldest = self._order.popleft()
            self._drop(self._parts[oldest])
            if not self._parts[oldest] and oldest != salt:
                del self._parts[oldest]
        # a caller with one short answer takes little; where more follow, searches in this part find less
        room = self._size if parts else min(self._size, max(LEAST, 4 * length))
        parts.insert(0, SuffixIndex(array("i"), 0, room))
        self._order.append(salt)

    def _drop(self, parts: list[SuffixIndex]) -> None:
        """Forget a caller's oldest part."""
        dropped = parts.pop()
        if dropped in self._growing:
            self._growing.remove(dropped)
