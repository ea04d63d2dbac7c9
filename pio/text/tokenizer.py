"""The tokenizer of a model folder: text to token ids and back, by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pio.errors import CheckpointError, ConfigError, PioError
from pio.loading.model_file import find, read_limited, shown
from pio.shelter import interruptible, sheltered
from pio.text.added_tokens import add_configured, check_stored
from pio.text.control_tokens import ControlTokens
from pio.text.rust_calls import check_text, guarded
from pio.text.token_bytes import TokenBytes
from pio.text.tokenizer_checks import check_file, check_growth, check_vocabulary
from pio.text.tokenizer_config import special_tokens, tokenizer_config

if TYPE_CHECKING:
    import tokenizers

MAX_TOKENIZER_BYTES = 256 << 20
LONG_TEXT = 1 << 14  # characters that take some 10 ms; more are encoded without the GIL
LONG_ANSWER = 1 << 12  # the same in tokens

_Result = TypeVar("_Result")
# What transformers takes out of the text of tokenizers that are not BPE, in this order.
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_NOTHING: frozenset[int] = frozenset()


class Tokenizer:
    """Turns text into token ids and back; every method may be called from any number of threads at once.

    Attributes:
        eos_token: Text of the token that ends an answer, or None.
        eos_token_id: Its id, or None where the vocabulary lacks it.
        bos_token: Text of the token that begins a text, or None.
        pad_token: Text of the token that fills up, or None.
        special_tokens: The named special tokens by name, such as ``{"eos_token": "<|im_end|>"}``; those of the model
            itself, such as ``image_token``, among them.
        special_ids: Ids that ``skip_special_tokens`` leaves out.
        control_ids: Ids of the added tokens, but those of nothing but spaces: what texts are not made of.
        reasoning_ids: Ids of ``<think>`` and ``</think>``; some tokenizers call them special, Qwen's do not.
        size: One more than the highest id that has a token.
        limit: One more than the highest id that ``decode`` accepts; models often have a few ids more than tokens.
        cleans_spaces: Whether ``decode`` takes out spaces before punctuation.
        bytes_of: The bytes of each token by its id, which is not checked.
        is_byte_level: Whether each token stands for bytes, as GPT-2's and Qwen's do.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: dict[str, Any],
        *,
        vocab_size: int = 0,
        where: str = "the tokenizer",
    ) -> None:
        """Wrap a loaded `tokenizers` object.

        Args:
            backend: The object; it is changed here and must not be changed later.
            config: As ``tokenizer_config`` returns it, or ``{}``.
            vocab_size: How many ids the model has; those beyond the tokenizer's own decode to nothing.
            where: The file, for messages.

        Raises:
            CheckpointError: An id lies beyond any sensible vocabulary or stands for two tokens, an added token has no
                text or another id than is written, or the tokenizer would make texts many times as long.
        """
        self._backend = backend
        self._where = where
        check_growth(backend, where)
        backend.no_truncation()
        backend.no_padding()
        add_configured(backend, config, where)
        self.special_tokens = special_tokens(config, where)
        self.bos_token = self.special_tokens.get("bos_token")
        self.eos_token = self.special_tokens.get("eos_token")
        self.eos_token_id = backend.token_to_id(self.eos_token) if self.eos_token else None
        self.pad_token = self.special_tokens.get("pad_token")
        added = backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(number for number, token in added.items() if token.special)
        # a control token is never text; added ones of spaces alone are
        self.control_ids: frozenset[int] = frozenset(n for n, token in added.items() if not token.content.isspace())
        marks = (backend.token_to_id("<think>"), backend.token_to_id("</think>"))
        self.reasoning_ids: frozenset[int] = frozenset(number for number in marks if number is not None)
        self.size: int = check_vocabulary(backend, where)
        self.limit: int = max(self.size, vocab_size)
        algorithm = type(backend.model).__name__
        self.cleans_spaces = config.get("clean_up_tokenization_spaces") is True and algorithm != "BPE"
        self.is_byte_level = type(backend.decoder).__name__ == "ByteLevel" and not self.cleans_spaces
        if config.get("split_special_tokens") is True:
            backend.encode_special_tokens = True
        self.bytes_of = TokenBytes(backend, self.is_byte_level, self.decode_raw)

    @classmethod
    def from_folder(cls, path: str | Path, *, vocab_size: int = 0) -> Tokenizer | None:
        """Load ``tokenizer.json`` and ``tokenizer_config.json`` of a model folder.

        Args:
            path: The folder.
            vocab_size: How many ids the model has, from its config.

        Returns:
            The tokenizer, or None where the folder holds no ``tokenizer.json``.

        Raises:
            CheckpointError: A file is too large, damaged or not what it should be, or two of them contradict each
                other.
        """
        folder = Path(path)
        file = find(folder, "tokenizer.json")
        if file is None:
            return None
        data = read_limited(file, MAX_TOKENIZER_BYTES)
        config = tokenizer_config(folder)

        check_file(data, str(file))

        def load() -> Tokenizer:
            import tokenizers

            backend = tokenizers.Tokenizer.from_buffer(data)
            check_stored(backend, data, str(file))
            return cls(backend, config, vocab_size=vocab_size, where=str(file))

        bad = f"{file} is not a tokenizer that can be used; download the file again"
        return sheltered(lambda: guarded(load, CheckpointError, bad))

    def encode(self, text: str, *, add_special_tokens: bool = True, literal: bool = False) -> list[int]:
        """Return the token ids of a text.

        Args:
            text: Any text; special tokens written out in it become those tokens.
            add_special_tokens: Whether to add what the tokenizer puts around a text, such as a begin token.
            literal: Whether control tokens written out in it stay letters.

        Raises:
            ConfigError: Not a str, text that is no valid Unicode, or a control token cannot stay letters.
        """
        check_text(text, "text")
        if literal:
            return self._known(self.control_tokens.encode(text, add_special_tokens=add_special_tokens))
        return self._known(self._encoding(self._backend, text, add_special_tokens).ids)

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Return the token ids of each text; the same as ``encode`` of one after the other.

        Raises:
            ConfigError: As ``encode``, naming the text.
        """
        if isinstance(texts, str):
            raise ConfigError("encode_batch takes a list of texts, found one str; call encode, or put it into a list")
        for index, text in enumerate(texts):
            check_text(text, f"texts[{index}]")
        batch = partial(self._backend.encode_batch, list(texts), add_special_tokens=add_special_tokens)
        found = self._call(lambda: interruptible(batch))
        return [self._known(encoding.ids) for encoding in found]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False, keep: Collection[int] = _NOTHING) -> str:
        """Return the text of token ids; bytes that form no character become U+FFFD.

        Args:
            ids: Token ids. An id that the model has and the tokenizer has not stands for nothing.
            skip_special_tokens: Whether to leave out ``special_ids``.
            keep: Special ids that are not left out all the same, such as those of ``<think>``.

        Raises:
            ConfigError: An id is not an int or lies outside the vocabulary.
        """
        checked = [self.check_id(number) for number in ids]
        if skip_special_tokens:
            checked = [number for number in checked if number not in self.special_ids or number in keep]
        text = self.decode_raw(checked)
        return clean_spaces(text) if self.cleans_spaces else text

    def decode_raw(self, ids: list[int]) -> str:
        """Return the text of checked ids with every special token and every space in it."""
        if self.is_byte_level:  # the library would read added tokens as bytes, too
            return b"".join(map(self.bytes_of.__getitem__, ids)).decode("utf-8", "replace")
        if len(ids) > LONG_ANSWER:
            return self._call(lambda: interruptible(lambda: self._backend.decode_batch([ids], False)))[0]
        return self._call(lambda: self._backend.decode(ids, skip_special_tokens=False))

    def check_id(self, number: int) -> int:
        """Return ``number`` if it is a token id.

        Raises:
            ConfigError: It is not an int, or lies outside the vocabulary.
        """
        if type(number) is int and 0 <= number < self.limit:
            return number
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise ConfigError(f"a token id must be an int from 0 to {self.limit - 1}, found {shown(number)}")
        plain = number.__index__()
        if not 0 <= plain < self.limit:
            raise ConfigError(
                f"token id {plain} is outside the vocabulary; ids run from 0 to {self.limit - 1}, "
                "use ids that this model's tokenizer made"
            )
        return plain

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token written as in the vocabulary, or None."""
        return self._backend.token_to_id(token)

    def id_to_token(self, number: int) -> str | None:
        """Return a token as the vocabulary writes it, or None where the id stands for nothing.

        Raises:
            ConfigError: The id lies outside the vocabulary.
        """
        return self._backend.id_to_token(self.check_id(number))

    def token_bytes(self, number: int) -> bytes:
        """Return the bytes that a token adds to a text; they may be part of a character.

        Added tokens are their text. Where the tokenizer drops a space at the beginning of a text, the token has it.

        Raises:
            ConfigError: The id lies outside the vocabulary.
        """
        return self.bytes_of[self.check_id(number)]

    @cached_property
    def control_tokens(self) -> ControlTokens:
        """The added tokens, for texts that only mention them."""
        return ControlTokens(self._backend, self._encoding)

    @cached_property
    def joins(self) -> bool:
        """Whether tokens stand for bytes, and no space is put or taken where a text begins.

        Then tokens of texts, one behind the other, are tokens of all of them together.
        """
        return self.is_byte_level and self.decode(self.encode("x", add_special_tokens=False)) == "x"

    def _encoding(self, backend: tokenizers.Tokenizer, text: str, add_special_tokens: bool) -> tokenizers.Encoding:
        if len(text) <= LONG_TEXT:
            return self._call(lambda: backend.encode(text, add_special_tokens=add_special_tokens))
        # The library releases the GIL for batches only.
        batch = partial(backend.encode_batch, [text], add_special_tokens=add_special_tokens)
        return self._call(lambda: interruptible(batch))[0]

    def _known(self, ids: list[int]) -> list[int]:
        """Return ids that the tokenizer made; a post-processor may name any number as a token."""
        if max(ids, default=0) >= self.limit:
            raise CheckpointError(
                f"{self._where} makes the token id {max(ids)}, and the vocabulary ends at {self.limit - 1}; "
                "download the file again"
            )
        return ids

    def _call(self, work: Callable[[], _Result]) -> _Result:
        return guarded(work, PioError, f"the tokenizer {self._where} failed; check it, or download the file again")


def clean_spaces(text: str) -> str:
    """Return a text without the spaces that word-piece tokenizers put before punctuation."""
    for spaced in _SPACED:
        text = text.replace(spaced, spaced.strip())
    return text
