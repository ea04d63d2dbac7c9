"""The tokenizer of a model folder: text to token ids and back, by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pio.errors import CheckpointError, ConfigError, PioError
from pio.loading.json_file import read_object
from pio.loading.model_file import find, read_limited, shown
from pio.loading.tokenizer_checks import check_file, check_growth
from pio.shelter import sheltered

if TYPE_CHECKING:
    import tokenizers

MAX_TOKENIZER_BYTES = 256 << 20
MAX_CONFIG_BYTES = 16 << 20
MAX_VOCABULARY = 1 << 24

_Result = TypeVar("_Result")
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What transformers takes out of the text of tokenizers that are not BPE, in this order.
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_NOTHING: frozenset[int] = frozenset()


class Tokenizer:
    """Turns text into token ids and back; every method may be called from any number of threads at once.

    Attributes:
        eos_token: Text of the token that ends an answer, or None.
        bos_token: Text of the token that begins a text, or None.
        pad_token: Text of the token that fills up, or None.
        special_tokens: The named special tokens by name, such as ``{"eos_token": "<|im_end|>"}``.
        special_ids: Ids that ``skip_special_tokens`` leaves out.
        reasoning_ids: Ids of ``<think>`` and ``</think>``; some tokenizers call them special, Qwen's do not.
        size: One more than the highest id that has a token.
        limit: One more than the highest id that ``decode`` accepts; models often have a few ids more than tokens.
        cleans_spaces: Whether ``decode`` takes out spaces before punctuation.
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
            config: What ``tokenizer_config.json`` holds, or ``{}``.
            vocab_size: How many ids the model has; those beyond the tokenizer's own decode to nothing.
            where: The file, for messages.

        Raises:
            CheckpointError: An id lies beyond any sensible vocabulary, a special token is not text, or the tokenizer
                would make texts many times as long.
        """
        self._backend = backend
        self._where = where
        check_growth(backend, where)
        backend.no_truncation()
        backend.no_padding()
        self.special_tokens = special_tokens(config, where)
        self.bos_token = self.special_tokens.get("bos_token")
        self.eos_token = self.special_tokens.get("eos_token")
        self.pad_token = self.special_tokens.get("pad_token")
        known = [token for token in self.special_tokens.values() if backend.token_to_id(token) is not None]
        cast("Any", backend).add_special_tokens(known)
        added = backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(number for number, token in added.items() if token.special)
        marks = (backend.token_to_id("<think>"), backend.token_to_id("</think>"))
        self.reasoning_ids: frozenset[int] = frozenset(number for number in marks if number is not None)
        self.size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
        if not 0 < self.size <= MAX_VOCABULARY:
            raise CheckpointError(
                f"{where} has token ids up to {self.size - 1}; 0 to {MAX_VOCABULARY - 1} were expected, "
                "download the file again"
            )
        self.limit: int = max(self.size, vocab_size)
        kind = type(backend.model).__name__
        self.cleans_spaces = config.get("clean_up_tokenization_spaces") is True and kind != "BPE"
        self.is_byte_level = type(backend.decoder).__name__ == "ByteLevel" and not self.cleans_spaces
        if config.get("split_special_tokens") is True:
            backend.encode_special_tokens = True

    @classmethod
    def from_folder(cls, path: str | Path, *, vocab_size: int = 0) -> Tokenizer | None:
        """Load ``tokenizer.json`` and ``tokenizer_config.json`` of a model folder.

        Args:
            path: The folder.
            vocab_size: How many ids the model has, from its config.

        Returns:
            The tokenizer, or None where the folder holds no ``tokenizer.json``.

        Raises:
            CheckpointError: A file is too large, damaged or not what it should be.
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

            return cls(tokenizers.Tokenizer.from_buffer(data), config, vocab_size=vocab_size, where=str(file))

        bad = f"{file} is not a tokenizer that can be used; download the file again"
        return sheltered(lambda: _guarded(load, CheckpointError, bad))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text.

        Args:
            text: Any text; special tokens written out in it become those tokens.
            add_special_tokens: Whether to add what the tokenizer puts around a text, such as a begin token.

        Raises:
            ConfigError: Not a str, or text that is no valid Unicode.
        """
        _check_text(text, "text")
        return self._known(self._call(lambda: self._backend.encode(text, add_special_tokens=add_special_tokens).ids))

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Return the token ids of each text; the same as ``encode`` of one after the other.

        Raises:
            ConfigError: As ``encode``, naming the text.
        """
        if isinstance(texts, str):
            raise ConfigError("encode_batch takes a list of texts, found one str; call encode, or put it into a list")
        for index, text in enumerate(texts):
            _check_text(text, f"texts[{index}]")
        found = self._call(lambda: self._backend.encode_batch(list(texts), add_special_tokens=add_special_tokens))
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
        """Return the bytes that a token of a byte-level tokenizer stands for.

        Raises:
            ConfigError: The id lies outside the vocabulary.
        """
        token = self.id_to_token(number)
        if token is None:
            return b""
        alphabet = self._byte_alphabet
        try:
            return bytes([alphabet[character] for character in token])
        except KeyError:  # an added token may hold any character, and stands for itself
            return token.encode()

    @cached_property
    def _byte_alphabet(self) -> dict[str, int]:
        """The visible character that byte-level vocabularies write for each byte."""
        visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
        hidden = [byte for byte in range(256) if byte not in visible]
        return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}

    def _known(self, ids: list[int]) -> list[int]:
        """Return ids that the tokenizer made; a post-processor may name any number as a token."""
        if max(ids, default=0) >= self.limit:
            raise CheckpointError(
                f"{self._where} makes the token id {max(ids)}, and the vocabulary ends at {self.limit - 1}; "
                "download the file again"
            )
        return ids

    def _call(self, work: Callable[[], _Result]) -> _Result:
        return _guarded(work, PioError, f"the tokenizer {self._where} failed; check it, or download the file again")


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return what ``tokenizer_config.json`` of a folder holds, ``{}`` without one.

    Raises:
        CheckpointError: The file is too large or not a JSON object.
    """
    file = find(folder, "tokenizer_config.json")
    return read_object(file, max_bytes=MAX_CONFIG_BYTES) if file is not None else {}


def special_tokens(config: dict[str, Any], where: str) -> dict[str, str]:
    """Return the named special tokens of a tokenizer config by name.

    Raises:
        CheckpointError: One of them is no text.
    """
    found: dict[str, str] = {}
    for name in _NAMED:
        value: Any = config.get(name)
        if isinstance(value, dict):  # older files store the whole added token
            value = cast("dict[str, Any]", value).get("content")
        if isinstance(value, str) and value:
            found[name] = value
        elif value is not None and value != "":
            raise CheckpointError(
                f"{where}: {name} in tokenizer_config.json is {shown(value)}, a string was expected; "
                "download the file again"
            )
    return found


def clean_spaces(text: str) -> str:
    """Return a text without the spaces that word-piece tokenizers put before punctuation."""
    for spaced in _SPACED:
        text = text.replace(spaced, spaced.strip())
    return text


def _check_text(text: object, name: str) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"{name} must be a str, found {type(text).__name__}; decode bytes with .decode('utf-8')")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} holds a lone surrogate, U+{ord(text[error.start]):04X}, at character {error.start}; "
            "read it with errors='replace', or remove it"
        ) from None


def _guarded(work: Callable[[], _Result], error: type[PioError], message: str) -> _Result:
    """Run Rust code; its panics derive from BaseException alone and would pass every ``except Exception``."""
    try:
        return work()
    except (PioError, MemoryError):
        raise
    except Exception as cause:
        raise error(f"{message} ({shown(str(cause), 200)})") from cause
    except BaseException as cause:
        if type(cause).__name__ != "PanicException":
            raise
        raise error(f"{message} (it panicked: {shown(str(cause), 200)})") from cause
