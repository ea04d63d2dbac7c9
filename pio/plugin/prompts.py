"""Prompts of every kind, brought to token ids with the checkpoint's own tokenizer and chat template."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from pio.errors import CapacityError, ConfigError
from pio.loading.model_file import shown
from pio.plugin.media_parts import FIELDS, MediaSource, take_media
from pio.plugin.media_processor import MediaProcessor
from pio.text.chat_template import ChatTemplate, Conversation
from pio.text.control_tokens import strings
from pio.text.detokenizer import Detokenizer
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.final_message import continues_reasoning, field_of
from pio.text.messages import check_messages
from pio.text.plain_data import is_record, plain
from pio.text.reasoning import Reasoning
from pio.text.tokenizer import Tokenizer
from pio.text.tokenizer_config import without_tokenizer

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Sequence[Message]
Prompt: TypeAlias = str | Sequence[int] | Messages | EncodedPrompt | Mapping[str, Any] | tuple[str, Any]
Marks: TypeAlias = tuple[str, str, str]


class Prompts:
    """A folder's tokenizer and chat template; either may be missing.

    Args:
        folder: Where they come from, for messages.
        tokenizer: None where the folder has none: prompts are token ids then.
        chat_template: Empty where the folder has none.
        literal: Whether control tokens that are written in messages, prefixes and suffixes stay text.
        media: Reads pictures and videos; None where the model takes text alone.
    """

    def __init__(
        self,
        folder: str,
        tokenizer: Tokenizer | None,
        chat_template: ChatTemplate,
        *,
        literal: bool = False,
        media: MediaProcessor | None = None,
    ) -> None:
        self.media = media
        self.most_tokens = sys.maxsize  # of a prompt with pictures, which are not read beyond that
        self.folder = folder
        self.literal = literal
        self.optional_tokenizer = tokenizer
        self.chat_template = chat_template

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            ConfigError: The folder has none.
        """
        if self.optional_tokenizer is None:
            raise ConfigError(without_tokenizer(Path(self.folder)))
        return self.optional_tokenizer

    def detokenizer(self, skip_special_tokens: bool) -> Detokenizer:
        """Return what turns one answer's tokens into text as they come; the tags of reasoning always stay."""
        tokenizer = self.tokenizer
        return Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens, keep=tokenizer.reasoning_ids)

    def token_text(self, token: int) -> str:
        """Return the text of one token alone."""
        return self.tokenizer.decode([token])

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token, which may be part of a character."""
        return self.tokenizer.token_bytes(token)

    def render(self, messages: Messages, /, **variables: Any) -> str:
        """Return the prompt for a conversation, as the template writes it.

        Raises:
            ConfigError: The folder has no chat template, or a message is malformed.
            CheckpointError: The template is broken or does what a template must not.
        """
        return self.chat_template.render(take_media(messages)[0] if self.media else messages, **variables)

    def encode(self, prompt: Prompt | None, /, **variables: Any) -> EncodedPrompt:
        """Return a prompt as the engine takes it.

        Args:
            prompt: Text, token ids, a list of messages, a text with pictures, or what this has returned before.
            **variables: Of the template; for messages only.

        Raises:
            ConfigError: The prompt is of no such kind, or the folder lacks what it needs.
            MediaError: A picture or a video cannot be read.
        """
        if self.media is None or isinstance(prompt, EncodedPrompt):
            return self._encode(prompt, **variables)
        return self._see(self.media, prompt, self.most_tokens, **variables)

    def _see(
        self, media: MediaProcessor, prompt: Any, most: int, known: dict[Any, Any] | None = None, /, **variables: Any
    ) -> EncodedPrompt:
        """Encode a prompt that may have pictures; what is known of them, by the object that was given, is not read."""
        given, sources = take_media(prompt)
        written = self._encode(given, **variables)
        if known is not None:
            for source in sources:
                if (key := _key(source)) not in known:
                    known[key] = media.prepare(source)
            sources = [replace(source, value=known[_key(source)]) for source in sources]
        return replace(media.place(written.token_ids, sources, most), reasoning=written.reasoning)

    def _encode(self, prompt: Any, /, **variables: Any) -> EncodedPrompt:
        if isinstance(prompt, (str, EncodedPrompt)):
            _refuse(variables)
            return EncodedPrompt(self.tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt
        given: Any = prompt
        pair = cast("tuple[Any, ...]", given) if isinstance(given, tuple) else ()
        beside = len(pair) == 2 and isinstance(pair[0], str) and not is_record(pair[1])
        if beside or (isinstance(given, Mapping) and FIELDS.keys() & given.keys() and "role" not in given):
            raise ConfigError(
                "prompt: it has pictures, and this model reads text only; load a model that can read them"
            )
        if isinstance(given, (bytes, bytearray, Mapping)) or not isinstance(given, Iterable):
            raise ConfigError(
                f"prompt: found a {type(cast('object', given)).__name__}, expected a str, a list of token ids or a "
                "list of messages"
            )
        items = list(cast("Iterable[Any]", given))
        if not items or not is_record(items[0]):
            _refuse(variables)
            return EncodedPrompt(items)
        text, ids = self._written(items, dict(variables))
        field = field_of(variables.get("continue_final_message"))
        continued = None if field is None else continues_reasoning(items[-1], field, self.chat_template.modalities)
        return EncodedPrompt(ids, Reasoning.of(text, self.chat_template.sources.values(), continued))

    def _written(self, messages: list[Any], variables: dict[str, Any]) -> tuple[str, list[int]]:
        """What the template writes of a conversation, and its token ids."""
        template = self.chat_template
        if not self.literal and not self._mentions_marks(messages, variables):
            text = template.render(messages, **variables)
            return text, self.tokenizer.encode(text, add_special_tokens=False)
        ways = {
            name: variables.pop(name) for name in ("add_generation_prompt", "continue_final_message") & variables.keys()
        }
        given = template.checked(messages, **variables)
        control = self.tokenizer.control_tokens
        marks = control.choose_marks([*given, template.sources, template.special_tokens])
        # else only what stands for pictures stays text
        keep = () if self.literal or self.media is None else control.others(self.media.marks)
        others = (control.mark(value, marks, keep) for value in given[1:])
        text = template.write(Conversation(control.mark_messages(given.messages, marks, keep), *others), **ways)
        return text, control.encode_marked(text, marks)

    def _mentions_marks(self, messages: list[Any], variables: dict[str, Any]) -> bool:
        """Say whether somebody wrote into a text what stands for a picture."""
        if self.media is None:
            return False
        told = [*strings([plain(message, "messages") for message in messages] + [*variables.values()])]
        # also what begins in one text and ends in the next, which a template may write side by side
        return any(mark in text for mark in self.media.marks for text in ("\0".join(told), "".join(told)))

    def fill(
        self, prompt: object, prefix: object, suffix: object, marks: Marks | None, /, **variables: Any
    ) -> EncodedPrompt:
        """Return the prompt that asks for what stands between a prefix and a suffix.

        Args:
            prompt: Must be None: the two take its place.
            prefix: The text that stands before; None is nothing.
            suffix: The text that stands behind; None is nothing.
            marks: The model's tokens before the prefix, before the suffix, and before the answer.
            **variables: Of the template; there must be none.

        Raises:
            ConfigError: There is a prompt or a variable too, one of the two is no text, the model cannot do it, or the
                tokenizer lacks its tokens; or one of the two holds such a token, which is not to stay text.
        """
        if prompt is not None:
            raise ConfigError("prompt: found one beside prefix and suffix, which take its place; give it or them")
        if marks is None:
            raise ConfigError(
                "prefix and suffix: this model was not trained to fill a gap; give a prompt, or choose a model for code"
            )
        _refuse(variables, "prefix and suffix")
        ids: list[int] = []
        for mark, name, given in zip(marks, ("prefix", "suffix", ""), (prefix, suffix, None), strict=True):
            text = "" if given is None else given
            if not isinstance(text, str):
                raise ConfigError(f"{name}: found {shown(text)}, expected a str")
            found = self.tokenizer.encode(mark, add_special_tokens=False)
            if len(found) != 1:
                raise ConfigError(f"{self.folder}: the tokenizer has no token {mark}; download the model again")
            if not self.literal and any(other in text for other in marks):
                raise ConfigError(f"{name}: found one of {', '.join(marks)} in the text, which the model would obey")
            ids += found + self.tokenizer.encode(text, add_special_tokens=False, literal=self.literal)
        return EncodedPrompt(ids)

    def fit(self, messages: Messages, budget: int, /, **variables: Any) -> list[Message]:
        """Return the conversation without its oldest turns, so that its prompt has at most ``budget`` tokens.

        A turn is a user's message with what follows it. System messages stay, and so does the last turn.

        Raises:
            CapacityError: What must stay is longer already.
            ConfigError: There is no chat template, a message is malformed, or the budget is no number of tokens.
        """
        asked: Any = budget
        if isinstance(asked, bool) or not hasattr(asked, "__index__") or asked < 1:
            raise ConfigError(f"budget is {shown(asked)}; a number of tokens was expected")
        checked = check_messages(take_media(messages)[0] if self.media else messages, self.chat_template.modalities)
        turns = list(zip(messages, (message["role"] for message in checked), strict=True))
        known: dict[Any, Any] = {}  # pictures that were read
        while True:
            kept = [message for message, _ in turns]
            seen = (
                self._encode(kept, **variables)
                if self.media is None
                else (self._see(self.media, kept, sys.maxsize, known, **variables))
            )
            count = len(seen.token_ids)
            if count <= budget:
                return kept
            users = [i for i, (_, role) in enumerate(turns) if role == "user"]
            if len(users) < 2:
                raise CapacityError(
                    f"the last turn and the system message take {count} tokens, the budget is {budget}; "
                    "shorten them or raise the budget"
                )
            turns = [turn for i, turn in enumerate(turns) if i >= users[1] or turn[1] == "system"]


def _key(source: MediaSource) -> object:
    """What tells two pictures apart without reading them: the objects that were given, and what was said of them."""
    return id(source.value), source.kind, tuple(sorted(source.settings.items()))


def _refuse(variables: dict[str, Any], found: str = "a plain prompt") -> None:
    given = [name for name, value in variables.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: only a list of messages can use this; found {found}")
