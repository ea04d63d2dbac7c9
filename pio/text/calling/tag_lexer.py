"""Cuts a stream of text at tags, wherever its pieces begin and end."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator


class TagLexer:
    """Finds tags in a stream; no character is lost, and none is looked at more than a few times.

    A tag begins with ``<`` and holds no other. Where one is the beginning of another, the longer wins.
    """

    def __init__(self, tags: Collection[str]) -> None:
        """Start before the first character.

        Args:
            tags: At least one.
        """
        longest_first = sorted(tags, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._begun = {tag[:length] for tag in tags for length in range(1, len(tag))}
        self._held = ""

    def push(self, piece: str) -> Iterator[tuple[bool, str]]:
        """Add text and yield what is certain now.

        Yields:
            Whether it is a tag, and the text; no text is empty.
        """
        text = self._held + piece
        last = text.rfind("<")
        cut = last if last >= 0 and text[last:] in self._begun else len(text)
        self._held = text[cut:]
        return self._cut(text[:cut])

    def flush(self) -> Iterator[tuple[bool, str]]:
        """Yield what was held back because it could have become a tag."""
        text, self._held = self._held, ""
        return self._cut(text)

    def _cut(self, text: str) -> Iterator[tuple[bool, str]]:
        begin = 0
        for found in self._pattern.finditer(text):
            if found.start() > begin:
                yield False, text[begin : found.start()]
            yield True, found[0]
            begin = found.end()
        if begin < len(text):
            yield False, text[begin:]
