"""Tokens and the text that they are, special ones included: where in it each of them stands."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from functools import cached_property

from pio.text.tokenizer import Tokenizer

_decoder = getincrementaldecoder("utf-8")


class TokenSpans:
    """Tokens of an answer; of a tokenizer whose tokens stand for bytes (``Tokenizer.joins``).

    Attributes:
        ids: The tokens.
        text: What they are together; bytes that form no character are U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        """Look up the text.

        Args:
            tokenizer: That the tokens are of.
            ids: Checked.
        """
        self._tokenizer = tokenizer
        self.ids = list(ids)
        self.text = tokenizer.decode_raw(self.ids)

    @cached_property
    def spoken(self) -> bool:
        """Whether each of them stands for something."""
        return all(map(self._tokenizer.bytes_of.__getitem__, self.ids))

    def at(self, place: int) -> int | None:
        """Return how many tokens make up the first ``place`` characters; None where one goes beyond."""
        for count, (_, end, whole) in enumerate(self._spans()):
            if end > place:
                return count if place == 0 else None
            if end == place and whole:
                return count + 1
        return 0 if place == 0 else None

    def ending(self, stop: str) -> int | None:
        """Return how many tokens stand before the last place of a text; None where there is none between two tokens."""
        place = self.text.rfind(stop)
        return None if place < 0 else self.at(place)

    def controls(self, first: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the control tokens from a token on, each with the place where it begins in the text."""
        for token, (begin, _, _) in zip(self.ids[first:], [*self._spans()][first:], strict=True):
            if token in self._tokenizer.control_ids:
                yield token, begin

    def _spans(self) -> Iterator[tuple[int, int, bool]]:
        """Yield where each token begins and ends, in characters, and whether none is incomplete at its end."""
        decoder, end = _decoder("replace"), 0
        for data in map(self._tokenizer.bytes_of.__getitem__, self.ids):
            end += len(decoder.decode(data))
            yield end - len(data.decode("utf-8", "replace")), end, not decoder.getstate()[0]
