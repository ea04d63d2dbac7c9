"""Text of token ids as they come, in whole characters only."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection

from pio.text.tokenizer import Tokenizer, clean_spaces

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_LONGEST_SPACED = 6  # characters that one clean-up, or two in a row, can reach over


class Detokenizer:
    """Turns a stream of token ids into text: the pieces together are ``tokenizer.decode`` of all ids, exactly.

    A piece never ends within a character, and never holds a U+FFFD that a later token would have turned into a
    character. Each token costs the same, however long the text is. One object serves one answer and one thread.

    Attributes:
        skipped: Ids that are left out of the text.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, keep: Collection[int] = frozenset()
    ) -> None:
        """Start an empty text.

        Args:
            tokenizer: Its decoding is followed.
            skip_special_tokens: Whether to leave out special tokens.
            keep: Special ids that are not left out all the same, such as those of ``<think>``.
        """
        self._tokenizer = tokenizer
        self.skipped: frozenset[int] = tokenizer.special_ids - frozenset(keep) if skip_special_tokens else frozenset()
        self._begun = b""  # bytes of a character that is not complete
        # The window decodes to text that has gone out (its first `_shown` ids) and text that has not.
        self._window: list[int] = []
        self._shown = 0
        self._spaced = ""

    def push(self, token_id: int) -> str:
        """Add a token and return the text that is certain now, often one word and sometimes nothing.

        Raises:
            ConfigError: The id lies outside the vocabulary.
        """
        number = self._tokenizer.check_id(token_id)
        if number in self.skipped:
            return ""
        if self._tokenizer.is_byte_level:
            data = self._begun + self._tokenizer.bytes_of[number]
            text, used = codecs.utf_8_decode(data, "replace", False)
            self._begun = data[used:]
            return text
        return self._settled(self._extend(number))

    def flush(self) -> str:
        """Return the rest: what was held back because more tokens could have changed it."""
        if self._tokenizer.is_byte_level:
            begun, self._begun = self._begun, b""
            return begun.decode("utf-8", "replace")
        text = self._spaced + self._take(self._text(self._window))
        self._window, self._shown, self._spaced = [], 0, ""
        return clean_spaces(text) if self._tokenizer.cleans_spaces else text

    def _extend(self, number: int) -> str:
        """Return new text of a decoder that joins tokens by its own rules, which look at neighbours only.

        The window keeps the last tokens that have gone out, because the first token of a decoded list may lose its
        leading space. It is decoded twice, and the difference in length is what the new tokens added.
        """
        token = self._tokenizer.id_to_token(number)
        if token is None:
            return ""
        self._window.append(number)
        if _BYTE_TOKEN.fullmatch(token):  # a run of bytes is decoded as a whole when it ends
            return ""
        text = self._text(self._window)
        # A decoder that cuts characters between tokens leaves U+FFFD at the end; none needs more than three more.
        if text.endswith("�") and len(self._window) - self._shown < 4:
            return ""
        return self._take(text)

    def _take(self, text: str) -> str:
        piece = text[len(self._text(self._window[: self._shown])) :]
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        return piece

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode_raw(ids)

    def _settled(self, piece: str) -> str:
        """Hold back an end that starts with a space, where the tokenizer may still take that space out."""
        if not self._tokenizer.cleans_spaces:
            return piece
        text = self._spaced + piece
        space = text.find(" ", max(0, len(text) - _LONGEST_SPACED))
        cut = len(text) if space < 0 else space
        while cut > 0 and (text[cut - 1] == " " or text.endswith(" '", 0, cut)):
            cut -= 1
        self._spaced = text[cut:]
        return clean_spaces(text[:cut])
