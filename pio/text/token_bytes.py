"""The bytes that each token stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import tokenizers

BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
"""How vocabularies with byte fallback write the token of one byte."""


class TokenBytes(dict[int, bytes]):
    """Bytes of tokens by id; each is worked out once, when it is first looked up.

    Args:
        backend: The tokenizer, with all its added tokens.
        byte_level: Whether its vocabulary writes each byte as a visible character, as GPT-2's does.
        decode: Text of token ids; for tokenizers that are not byte-level.
    """

    def __init__(self, backend: tokenizers.Tokenizer, byte_level: bool, decode: Callable[[list[int]], str]) -> None:
        super().__init__()
        self._backend = backend
        self._decode = decode
        if byte_level:
            # Added tokens are text. One that the vocabulary has too, and that is not special, may come from any text.
            model: Any = backend.model
            self.update(
                (number, token.content.encode())
                for number, token in backend.get_added_tokens_decoder().items()
                if token.special or model.token_to_id(token.content) is None
            )
            self._alphabet = _byte_alphabet()
        self._find = self._of_letters if byte_level else self._of_text

    def __missing__(self, number: int) -> bytes:
        token = self._backend.id_to_token(number)
        found = self[number] = b"" if token is None else self._find(number, token)
        return found

    def _of_letters(self, _number: int, token: str) -> bytes:
        alphabet = self._alphabet
        try:
            return bytes([alphabet[letter] for letter in token])
        except KeyError:  # a letter outside of the alphabet makes the library take the whole token as text
            return token.encode()

    def _of_text(self, number: int, token: str) -> bytes:
        """Return what a token adds to a text that has begun: at its beginning, many decoders drop a space."""
        byte, alone = BYTE_TOKEN.fullmatch(token), self._decode([number])
        if byte is not None and alone != token:
            return bytes.fromhex(byte[1])
        return self._decode([number, number])[len(alone) :].encode()


def _byte_alphabet() -> dict[str, int]:
    """Return the visible character that byte-level vocabularies write for each byte."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
