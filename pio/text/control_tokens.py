"""Control tokens that a text only mentions: encoded as the letters they are written with."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.arguments import Arguments, given_text
from pio.text.reasoning import CLOSE, OPEN
from pio.text.rust_calls import check_text

if TYPE_CHECKING:
    import tokenizers

    Encode = Callable[[tokenizers.Tokenizer, str, bool], tokenizers.Encoding]

_FIRST, _LAST = 0xE000, 0xF8FF  # letters for private use, which templates and normalizers leave alone
_PRIVATE = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_ESCAPED = re.compile(r"\\u([ef][0-9a-f]{3})", re.IGNORECASE)
_LONGEST = 256  # characters of a token that is looked for at the end of a text


class Marks(NamedTuple):
    """Letters that occur in none of a conversation's texts.

    Attributes:
        start: Stands before a control token of a message.
        end: Stands behind it; alone it keeps what is before it and what is behind it apart.
        hidden: Stands for such a token while the template's own ones are looked for.
        places: Stand for tokens of the template, one for each kind of flags that added tokens have.
    """

    start: str
    end: str
    hidden: str
    places: tuple[str, ...]


class ControlTokens:
    """The added tokens of a tokenizer, apart from its vocabulary; those of nothing but spaces do not control anything.

    Args:
        backend: The tokenizer, with all its added tokens.
        encode: Makes an encoding of a text with a tokenizer, with or without what that puts around a text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, encode: Encode) -> None:
        self._backend = backend
        self._encode = encode
        added = backend.get_added_tokens_decoder()
        self._ids = {token.content: number for number, token in added.items()}
        self._control = frozenset(number for content, number in self._ids.items() if not content.isspace())
        flags = {token.content: (token.normalized, token.lstrip, token.rstrip) for token in added.values()}
        self._kinds = sorted(set(flags.values()))
        self._kind = {content: self._kinds.index(kind) for content, kind in flags.items()}
        self._template_finder = self._finder(list(added.values()))
        # What is no word of its own for the tokenizer may become one beside a mark.
        self._text_finder = self._finder([_anywhere(token) for token in added.values()])
        self._found_as = {n: token.content for n, token in self._template_finder.get_added_tokens_decoder().items()}
        self._names = sorted(token for token, number in self._ids.items() if number in self._control)
        self._unknown = frozenset(self._encode(self._literal(()), "\U0010fffe", False).ids)

    def choose_marks(self, texts: Iterable[Any]) -> Marks:
        """Return letters for private use that none of the texts holds, written out or as an escape of JSON.

        Args:
            texts: All that a template can write: what it is given, and the template itself.

        Raises:
            ConfigError: They use up all such letters.
        """
        found = "\0".join(strings(list(texts)))
        taken = {*_PRIVATE.findall(found), *(chr(int(code, 16)) for code in _ESCAPED.findall(found))}
        free = [chr(code) for code in range(_FIRST, _LAST + 1) if chr(code) not in taken][: 3 + len(self._kinds)]
        if len(free) < 3 + len(self._kinds):
            raise ConfigError("messages: they hold every letter for private use, and some are needed; shorten them")
        start, end, hidden, *places = free
        return Marks(start, end, hidden, tuple(places))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of a text in which no control token counts as such.

        Raises:
            ConfigError: The vocabulary itself makes a control token of it.
        """
        marks = self.choose_marks([text])
        return self.encode_marked(self.mark(text, marks), marks, add_special_tokens=add_special_tokens)

    def others(self, tokens: Iterable[str]) -> tuple[str, ...]:
        """Return the control tokens but these."""
        return tuple(sorted({*self._names} - {*tokens}))

    def mark_messages(
        self, messages: Sequence[Mapping[str, Any]], marks: Marks, keep: tuple[str, ...] = ()
    ) -> list[Any]:
        """Return ``mark`` of messages; in those of the assistant tags of reasoning stay, for templates look for them.

        Raises:
            ConfigError: A text is no valid Unicode.
        """
        kept = ((*keep, OPEN, CLOSE) if message["role"] == "assistant" else keep for message in messages)
        return [self.mark(message, marks, keep) for message, keep in zip(messages, kept, strict=True)]

    def mark(self, value: Any, marks: Marks, keep: tuple[str, ...] = ()) -> Any:
        """Return plain data with marks around the control tokens in its texts, keys included.

        Args:
            value: What a chat template is to read, as it was checked.
            marks: As ``choose_marks`` chose them.
            keep: Tokens that are not marked.

        Raises:
            ConfigError: A text is no valid Unicode.
        """
        if isinstance(value, str):
            return self._marked(value, marks, keep)
        if isinstance(value, dict):
            pairs = cast("dict[str, Any]", value)
            found = {self._marked(key, marks, keep): self.mark(item, marks, keep) for key, item in pairs.items()}
            if not isinstance(value, Arguments):
                return found
            text = given_text(value)  # a template writes either; behind the last brace a mark would be no JSON
            return Arguments(found, None if text is None else self._marked(text, marks, keep).rstrip(marks.end))
        if isinstance(value, list):
            return [self.mark(item, marks, keep) for item in cast("list[Any]", value)]
        return value

    def encode_marked(self, text: str, marks: Marks, *, add_special_tokens: bool = False) -> list[int]:
        """Return the token ids of what a template wrote of marked data.

        What stands between two control tokens of the template, the texts of messages among it, is encoded in one go,
        as by a tokenizer that has no control tokens.

        Args:
            text: What the template wrote.
            marks: Those of the data.
            add_special_tokens: Whether to add what the tokenizer puts around a text.

        Raises:
            ConfigError: The vocabulary itself makes a control token of a text.
        """
        text, mentioned = self._hide(text, marks)
        tokens: list[int] = []
        texts: list[str] = []
        last = 0
        for start, end, content in self._found(self._template_finder, text):
            texts += [text[last:start], marks.places[self._kind[content]]]
            tokens.append(self._ids[content])
            last = end
        text = "".join([*texts, text[last:]]).replace(marks.end, "")
        parts = text.split(marks.hidden)
        text = parts[0] + "".join(token + part for token, part in zip(mentioned, parts[1:], strict=True))
        return self._ids_of(self._literal(marks.places), text, add_special_tokens, iter(tokens))

    def unmarked(self, text: str, marks: Marks) -> str:
        """Return what a template wrote of marked data without the marks."""
        for mark in (marks.start, marks.end):
            text = text.replace(f"\\u{ord(mark):04x}", "").replace(mark, "")
        return text

    def _hide(self, text: str, marks: Marks) -> tuple[str, list[str]]:
        """Return the text with one letter in the place of each marked token, and those tokens."""
        for mark in (marks.start, marks.end):  # a template may have written JSON in ASCII
            text = text.replace(f"\\u{ord(mark):04x}", mark)
        mentioned: list[str] = []
        first, *others = text.split(marks.start)
        pieces = [first]
        for piece in others:
            token, end, rest = piece.partition(marks.end)
            if end and self._is_token(token):
                mentioned.append(token)
                pieces.append(marks.hidden + rest)
            else:  # a template that cuts texts separated the two marks
                pieces.append(marks.end + piece)
        return "".join(pieces), mentioned

    def _marked(self, text: str, marks: Marks, keep: tuple[str, ...]) -> str:
        check_text(text, "messages")
        pieces: list[str] = []
        last = 0
        for start, end, token in self._found(self._text_finder, text):
            if token in keep or self._ids[token] not in self._control:
                continue
            pieces += [text[last:start], marks.start, text[start:end], marks.end]
            last = end
        # Whatever follows must not complete what a text ends with.
        behind = marks.end if self._ends_in_a_token(text) else ""
        return "".join([*pieces, text[last:], behind])

    def _ends_in_a_token(self, text: str) -> bool:
        """Return whether a text ends with the beginning of a control token, one that no word ends with."""
        for size in range(1, min(len(text), _LONGEST) + 1):
            end = text[-size:]
            place = bisect_right(self._names, end)
            if place < len(self._names) and self._names[place].startswith(end) and not end.isalnum():
                return True
        return False

    def _is_token(self, text: str) -> bool:
        if text in self._ids:
            return True
        found = list(self._found(self._text_finder, text))
        return len(found) == 1 and found[0][:2] == (0, len(text))

    def _finder(self, added: list[tokenizers.AddedToken]) -> tokenizers.Tokenizer:
        """Return what finds added tokens as the tokenizer does; all between them is one unknown word."""
        import tokenizers
        from tokenizers import models

        finder: Any = tokenizers.Tokenizer(models.WordLevel({"": 0}, unk_token=""))
        if self._backend.normalizer is not None:
            finder.normalizer = self._backend.normalizer
        finder.add_tokens(added)
        finder.encode_special_tokens = self._backend.encode_special_tokens
        return finder

    def _found(self, finder: tokenizers.Tokenizer, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield where added tokens begin and end, without the spaces that they take, and which they are."""
        encoding = self._encode(finder, text, False)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            content = self._found_as.get(number)
            if content is not None:
                begin = text.find(content, start, end)  # not there where normalizing makes the token
                yield (start, end, content) if begin < 0 else (begin, begin + len(content), content)

    def _literal(self, places: tuple[str, ...]) -> tokenizers.Tokenizer:
        """Return the tokenizer without added tokens, but with placeholders for them, one for each kind."""
        import tokenizers

        literal: Any = tokenizers.Tokenizer(self._backend.model)  # shares the vocabulary
        for part in ("normalizer", "pre_tokenizer", "post_processor"):
            if getattr(self._backend, part) is not None:
                setattr(literal, part, getattr(self._backend, part))
        literal.add_tokens(
            [
                tokenizers.AddedToken(place, normalized=normalized, lstrip=lstrip, rstrip=rstrip)
                for place, (normalized, lstrip, rstrip) in zip(places, self._kinds, strict=False)
            ]
        )
        return literal

    def _ids_of(self, literal: tokenizers.Tokenizer, text: str, around: bool, tokens: Iterator[int]) -> list[int]:
        encoding = self._encode(literal, text, around)
        places = literal.get_added_tokens_decoder()
        ids: list[int] = []
        for number, put_around in zip(encoding.ids, encoding.special_tokens_mask, strict=True):
            if put_around:
                ids.append(number)
            elif number in places:
                ids.append(next(tokens))
            elif number in self._control and number not in self._unknown:
                raise ConfigError(
                    f"{shown(self._backend.id_to_token(number))} cannot be kept as text: this model's vocabulary makes "
                    "its token of plain letters; take it out of the text"
                )
            else:
                ids.append(number)
        if next(tokens, None) is not None:
            raise ConfigError("this tokenizer's normalizer changes placeholders; leave literal_messages out")
        return ids


def _anywhere(token: tokenizers.AddedToken) -> tokenizers.AddedToken:
    """Return the token as one that need not be a word of its own."""
    import tokenizers

    return tokenizers.AddedToken(
        token.content, lstrip=token.lstrip, rstrip=token.rstrip, normalized=token.normalized, special=token.special
    )


def strings(value: Any) -> Iterator[str]:
    """Yield every text in plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from strings(key)
            yield from strings(item)
        if isinstance(value, Arguments):
            yield given_text(value) or ""
    elif isinstance(value, (list, tuple)):
        for item in cast("list[Any]", value):
            yield from strings(item)
