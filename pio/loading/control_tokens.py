"""Control tokens that a text only mentions: encoded as the letters they are written with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pio.errors import ConfigError
from pio.loading.messages import MAX_DEPTH
from pio.loading.model_file import shown
from pio.loading.reasoning import CLOSE, OPEN
from pio.loading.rust_calls import check_text

if TYPE_CHECKING:
    import tokenizers

    Encode = Callable[[tokenizers.Tokenizer, str, bool], tokenizers.Encoding]

_FIRST, _LAST = (
    0xE000,
    0xF8FF,
)  # letters for private use: no text needs them, templates and normalizers leave them alone


class Marks(NamedTuple):
    """Letters that occur in none of a conversation's texts.

    Attributes:
        start: Stands before a control token of a message.
        end: Stands behind it; alone it keeps what is before it and what is behind it apart.
        hidden: Stands for such a token while the template's own ones are looked for.
        plain: Stands for a token of the template.
        normalized: The same, for tokens that are found in normalized text.
    """

    start: str
    end: str
    hidden: str
    plain: str
    normalized: str


class ControlTokens:
    """The added tokens of a tokenizer, apart from its vocabulary; those of nothing but spaces are left out.

    Args:
        backend: The tokenizer, with all its added tokens.
        encode: Makes an encoding of a text with a tokenizer, with or without what that puts around a text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, encode: Encode) -> None:
        import tokenizers
        from tokenizers import models

        self._backend = backend
        self._encode = encode
        added = backend.get_added_tokens_decoder()
        self._ids = {token.content: number for number, token in added.items() if not token.content.isspace()}
        self._spaces = [token for token in added.values() if token.content.isspace()]
        self._normalized = {token.content for token in added.values() if token.normalized}
        # Finds them as the tokenizer does, by the same library; all between them is one unknown word.
        self._finder = tokenizers.Tokenizer(models.WordLevel({"": 0}, unk_token=""))
        if backend.normalizer is not None:
            cast("Any", self._finder).normalizer = backend.normalizer
        cast("Any", self._finder).add_tokens([token for token in added.values() if token.content in self._ids])
        self._found_as = {number: token.content for number, token in self._finder.get_added_tokens_decoder().items()}
        cast("Any", self._finder).encode_special_tokens = backend.encode_special_tokens
        self._beginnings = tuple(
            {token[:size] for token in self._ids for size in range(1, len(token)) if not token[:size].isalnum()}
        )

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of a text in which no control token counts as such.

        Raises:
            ConfigError: The vocabulary itself makes a control token of it.
        """
        return self._ids_of(self._literal(()), text, add_special_tokens, iter(()))

    def mark(self, value: Any, marks: Marks, keep: tuple[str, ...] = (), depth: int = 0) -> Any:
        """Return data with marks around the control tokens in its texts, keys included.

        In messages of the assistant the tags of reasoning stay as they are, for templates look for them.

        Args:
            value: What a chat template is to read; what is no data is left to it.
            marks: As ``choose_marks`` returns them.
            keep: Tokens that are not marked.
            depth: How deep the value lies.

        Raises:
            ConfigError: A text is no valid Unicode.
        """
        if isinstance(value, str):
            return self._marked(value, marks, keep)
        if depth > MAX_DEPTH:
            return value  # the template's own check says so
        if isinstance(value, Mapping):
            pairs = cast("Mapping[Any, Any]", value)
            if pairs.get("role") == "assistant":
                keep = (OPEN, CLOSE)
            return {
                self._marked(key, marks, keep) if isinstance(key, str) else key: self.mark(item, marks, keep, depth + 1)
                for key, item in pairs.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.mark(item, marks, keep, depth + 1) for item in cast("list[Any]", value)]
        return value

    def encode_marked(self, text: str, marks: Marks) -> list[int]:
        """Return the token ids of what a template wrote of marked data.

        What stands between two control tokens of the template, the texts of messages among it, is encoded in one go,
        as by a tokenizer that has no control tokens.

        Raises:
            ConfigError: The vocabulary itself makes a control token of a text.
        """
        for mark in (marks.start, marks.end):  # a template may have written JSON in ASCII
            text = text.replace(f"\\u{ord(mark):04x}", mark)
        mentioned: list[str] = []
        pieces: list[str] = []
        for index, piece in enumerate(text.split(marks.start)):
            token, end, rest = piece.partition(marks.end)
            if index and end and self._is_token(token):
                mentioned.append(token)
                piece = marks.hidden + rest
            elif index:  # a template that cuts texts separated the two marks
                piece = marks.end + piece
            pieces.append(piece)
        text = "".join(pieces)
        tokens, texts, last = list(self._found(text)), [""], 0
        for start, end, content in tokens:
            place = marks.normalized if content in self._normalized else marks.plain
            texts += [text[last:start], place]
            last = end
        text = "".join([*texts, text[last:]]).replace(marks.end, "")
        parts = text.split(marks.hidden)
        text = parts[0] + "".join(token + part for token, part in zip(mentioned, parts[1:], strict=True))
        literal = self._literal((marks.plain, marks.normalized))
        return self._ids_of(literal, text, False, iter([self._ids[content] for _, _, content in tokens]))

    def _marked(self, text: str, marks: Marks, keep: tuple[str, ...]) -> str:
        check_text(text, "messages")
        pieces: list[str] = []
        last = 0
        for start, end, token in self._found(text):
            if token not in keep:
                begin = text.find(token, start, end)  # the token may take spaces beside it
                if begin >= 0:
                    start, end = begin, begin + len(token)
                pieces += [text[last:start], marks.start, text[start:end], marks.end]
                last = end
        # Whatever follows must not complete what a text ends with.
        behind = marks.end if text.endswith(self._beginnings) else ""
        return "".join([*pieces, text[last:], behind])

    def _found(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield where control tokens begin and end, and which they are."""
        encoding = self._encode(self._finder, text, False)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            content = self._found_as.get(number)
            if content is not None:
                yield start, end, content

    def _is_token(self, text: str) -> bool:
        found = list(self._found(text))
        return len(found) == 1 and found[0][:2] == (0, len(text))

    def _literal(self, places: tuple[str, ...]) -> tokenizers.Tokenizer:
        """Return the tokenizer without its control tokens, and with placeholders for those of a template."""
        import tokenizers

        literal: Any = tokenizers.Tokenizer(self._backend.model)  # shares the vocabulary
        for part in ("normalizer", "pre_tokenizer", "post_processor"):
            if getattr(self._backend, part) is not None:
                setattr(literal, part, getattr(self._backend, part))
        flags = zip(places, (False, True), strict=False)
        literal.add_tokens(
            [*self._spaces, *(tokenizers.AddedToken(place, normalized=flag, special=not flag) for place, flag in flags)]
        )
        return literal

    def _ids_of(self, literal: tokenizers.Tokenizer, text: str, around: bool, tokens: Iterator[int]) -> list[int]:
        encoding = self._encode(literal, text, around)
        spaces = {token.content for token in self._spaces}
        added = literal.get_added_tokens_decoder()
        control = frozenset(self._ids.values())
        ids: list[int] = []
        for number, put_around in zip(encoding.ids, encoding.special_tokens_mask, strict=True):
            token = None if put_around else added.get(number)
            if token is not None and token.content in spaces:
                number = cast("int", self._backend.token_to_id(token.content))
            elif token is not None:
                number = next(tokens)
            elif number in control and not put_around:
                raise ConfigError(
                    f"{shown(self._backend.id_to_token(number))} cannot be kept as text: this model's vocabulary makes "
                    "its token of plain letters; take it out of the text"
                )
            ids.append(number)
        if next(tokens, None) is not None:
            raise ConfigError("this tokenizer's normalizer changes placeholders; leave literal_messages out")
        return ids


def choose_marks(texts: Iterable[Any]) -> Marks:
    """Return letters for private use that none of the texts holds, written out or as an escape of JSON.

    Args:
        texts: All that a template can write: what it is given, and the template itself.

    Raises:
        ConfigError: They use up all such letters.
    """
    found = "\0".join(_strings(list(texts)))
    escapes = found.lower() if "\\u" in found else ""
    free = (
        chr(code)
        for code in range(_FIRST, _LAST + 1)
        if chr(code) not in found and (not escapes or f"\\u{code:04x}" not in escapes)
    )
    chosen = [letter for letter, _ in zip(free, Marks._fields, strict=False)]
    if len(chosen) < len(Marks._fields):
        raise ConfigError("messages: they hold every letter for private use, of which some are needed; shorten them")
    return Marks(*chosen)


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth > MAX_DEPTH:
        return
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from _strings(key, depth + 1)
            yield from _strings(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in cast("list[Any]", value):
            yield from _strings(item, depth + 1)
