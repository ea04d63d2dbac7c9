"""Finds stop texts in streamed text and holds back what might become one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import Final

_SHOWN, _BEGINS, _ENDS = 1, 2, 4
_PLAIN: Final = bytes((_SHOWN | _BEGINS | _ENDS,))


class StopStrings:
    """Cuts streamed text at the stop text that is complete first; of those complete at once, the longest.

    The outcome depends on the characters alone, never on how they were split into pieces. Work is linear in the text.
    Some of the text may be hidden, as special tokens are: a stop text may name such a piece, but as a whole, for what
    nobody sees has no letters; and it is never shown but as part of a stop text that is kept.

    Attributes:
        matched: The stop text that was found, or None.
    """

    def __init__(self, stops: Iterable[str], *, include: bool = False) -> None:
        """Look for ``stops``; ``include`` keeps the one that is found in the text."""
        self._stops = sorted(set(stops), key=len, reverse=True)
        self._borders = [_borders(stop) for stop in self._stops]
        self._states = [0] * len(self._stops)  # characters at the end of the text that begin each stop
        self._held = ""
        self._marks = b""  # of each character held back, whether it is shown, and may begin and end a stop text
        self._include = include
        self.matched: str | None = None

    def push(self, piece: str, *, hidden: bool = False) -> str:
        """Take more text; return what can be shown now, which is nothing once a stop text was found."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return "" if hidden else piece
        text, marks = self._held + piece, self._marks + (_hidden(len(piece)) if hidden else _PLAIN * len(piece))
        for end in range(len(self._held), len(text)):
            if self._advance(text[end], marks, end):
                self._held, self._marks = "", b""
                stop = self.matched or ""
                shown = _shown(text[: end + 1 - len(stop)], marks)
                return shown + stop if self._include else shown
        cut = len(text) - max(self._states)
        self._held, self._marks = text[cut:], marks[cut:]
        return _shown(text[:cut], marks)

    @property
    def held(self) -> str:
        """Text that would be shown, but may still become part of a stop text."""
        return _shown(self._held, self._marks)

    def names(self, piece: str) -> bool:
        """Return whether a hidden piece is a stop text, whatever stands before it."""
        return piece in self._stops

    def flush(self) -> str:
        """Return the text held back, when no more is to come."""
        held = self.held
        self._held, self._marks = "", b""
        return held

    def _advance(self, character: str, marks: bytes, end: int) -> bool:
        """Move every state over the character at ``end``; say whether a stop text is complete."""
        for i, stop in enumerate(self._stops):
            state, borders = self._states[i], self._borders[i]
            while state and stop[state] != character:
                state = borders[state - 1]
            state += stop[state] == character
            if state == len(stop):
                if marks[end] & _ENDS and marks[end + 1 - state] & _BEGINS:  # longest first, and nothing comes after it
                    self.matched = stop
                    return True
                state = borders[state - 1]
            self._states[i] = state
        return False


def _hidden(length: int) -> bytes:
    """The marks of a hidden piece."""
    marks = bytearray(length)
    if length:
        marks[0] |= _BEGINS
        marks[-1] |= _ENDS
    return bytes(marks)


def _shown(text: str, marks: bytes) -> str:
    """The characters that are not hidden."""
    return "".join(compress(text, (mark & _SHOWN for mark in marks)))


def _borders(stop: str) -> list[int]:
    """For each prefix of stop, how many of its last characters begin stop again (Knuth, Morris, Pratt)."""
    borders = [0] * len(stop)
    length = 0
    for i in range(1, len(stop)):
        while length and stop[i] != stop[length]:
            length = borders[length - 1]
        length += stop[i] == stop[length]
        borders[i] = length
    return borders
