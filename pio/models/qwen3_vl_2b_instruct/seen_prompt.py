"""A prompt in the making, whose tokens stand in time, height and width."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from pio.media.prepared import PreparedMedium
from pio.text.encoded_prompt import EncodedPrompt, PlacedMedium, PromptPositions


class SeenPrompt:
    """A prompt in the making: its tokens, where they stand on three axes, and what some of them show."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._axes = tuple(array("i") for _ in range(3))  # time, height, width
        self._next = 0  # the position of what comes next
        self._media: list[PlacedMedium] = []

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self._ids)

    @property
    def seen(self) -> int:
        """Of them those that show something."""
        return sum(placed.tokens for placed in self._media)

    def write(self, ids: Sequence[int]) -> None:
        """Add text: each token is one position further on all axes."""
        for axis in self._axes:
            axis.extend(range(self._next, self._next + len(ids)))
        self._ids.extend(ids)
        self._next += len(ids)

    def look(self, token: int, height: int, width: int) -> int:
        """Add the tokens of a picture, which stand at one time in rows and columns; return the first one's number."""
        first, (time, rows, columns) = len(self._ids), self._axes
        self._ids.extend([token] * (height * width))
        time.extend([self._next] * (height * width))
        rows.extend([self._next + y for y in range(height) for _ in range(width)])
        columns.extend([self._next + x for _ in range(height) for x in range(width)])
        self._next += max(height, width)
        return first

    def see(self, medium: PreparedMedium, places: Sequence[int]) -> None:
        """Note what the tokens from these places on show."""
        self._media.append(PlacedMedium(medium, medium.key, tuple(places), medium.tokens))

    def encoded(self) -> EncodedPrompt:
        """Return the prompt."""
        if not self._media:
            return EncodedPrompt(self._ids)
        positions = PromptPositions(self._axes, self._next - len(self._ids))
        return EncodedPrompt(self._ids, media=self._media, positions=positions)
