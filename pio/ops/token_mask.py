"""Which tokens may come next, one bit for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Self

from pio.errors import ConfigError


class TokenMask:
    """One bit for each token of a vocabulary, 1 where it may come; all may at first.

    The bits of token t are ``words[t // 32] >> t % 32 & 1``, as libraries that make masks of grammars have them too.

    Attributes:
        vocab_size: Token ids are below it.
        words: int32 (ceil(vocab_size / 32),).
        address: Where they lie; they never move.
    """

    __slots__ = ("address", "vocab_size", "words")

    def __init__(self, vocab_size: int, forbidden: Iterable[int] = ()) -> None:
        """Allow all tokens but the forbidden ones.

        Raises:
            ConfigError: A token id is outside the vocabulary.
        """
        self.vocab_size = vocab_size
        bits = bytearray(b"\xff" * (4 * -(-vocab_size // 32)))
        for token in forbidden:
            check_token(token, vocab_size)
            bits[token >> 3] &= ~(1 << (token & 7))
        self.words = array("i", bytes(bits))
        self.address = self.words.buffer_info()[0]

    @classmethod
    def only(cls, token: int, vocab_size: int) -> Self:
        """Return a mask that lets one token alone come.

        Raises:
            ConfigError: The token id is outside the vocabulary.
        """
        mask = cls(vocab_size)
        memoryview(mask.words).cast("B")[:] = bytes(4 * len(mask.words))
        mask.allow(token)
        return mask

    def allow(self, token: int) -> None:
        """Let a token come, too.

        Raises:
            ConfigError: The token id is outside the vocabulary.
        """
        check_token(token, self.vocab_size)
        memoryview(self.words).cast("B")[token >> 3] |= 1 << (token & 7)


def check_token(token: int, vocab_size: int) -> None:
    """Refuse a token id that is outside the vocabulary.

    Raises:
        ConfigError: It is.
    """
    if not 0 <= token < vocab_size:
        raise ConfigError(f"token id {token} is outside the vocabulary; expected 0 to {vocab_size - 1}")
