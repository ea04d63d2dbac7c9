"""Prompts of every kind, brought to token ids with the checkpoint's own tokenizer and chat template."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from pio.errors import CapacityError, ConfigError
from pio.loading.model_file import shown
from pio.plugin.media_parts import FIELDS, MediaSource, take_media
from pio.plugin.media_processor import MediaProcessor
from pio.plugin.tool_use import ToolUse
from pio.text.chat_template import ChatTemplate, Conversation
from pio.text.closing import closing_text
from pio.text.control_tokens import strings
from pio.text.detokenizer import Detokenizer
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.final_message import continues_reasoning, field_of
from pio.text.messages import check_messages
from pio.text.plain_data import is_record, plain
from pio.text.reasoning import Reasoning
from pio.text.returned.answers import returned_answer, take_token_ids
from pio.text.returned.message import FinishedAnswer
from pio.text.returned.pieces import Writer
from pio.text.returned.turns import turns_in
from pio.text.tokenizer import Tokenizer
from pio.text.tokenizer_config import without_tokenizer

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Sequence[Message]
Prompt: TypeAlias = str | Sequence[int] | Messages | EncodedPrompt | Mapping[str, Any] | tuple[str, Any]
Marks: TypeAlias = tuple[str, str, str]
_WAYS: Final = frozenset(("add_generation_prompt", "continue_final_message"))  # in which a template writes


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
        self.call_format: str | None = None  # the plugin's, for templates that write no calls
        self._tools = ToolUse(folder, chat_template)
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

    def detokenizer(self, skip_special_tokens: bool, keep: frozenset[int] = frozenset()) -> Detokenizer:
        """Return what turns one answer's tokens into text as they come; those to keep, and tags of reasoning, stay."""
        tokenizer = self.tokenizer
        return Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens, keep=tokenizer.reasoning_ids | keep)

    def token_text(self, token: int) -> str:
        """Return the text of one token alone."""
        return self.tokenizer.decode([token])

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token, which may be part of a character."""
        return self.tokenizer.token_bytes(token)

    def closing_tokens(self) -> tuple[int, ...]:
        """Return the tokens that end the reasoning of an answer, as the template writes them."""
        return tuple(self.tokenizer.encode(closing_text(self.chat_template), add_special_tokens=False))

    def message(self, answer: FinishedAnswer) -> dict[str, Any]:
        """Return an answer as the message that it is in its conversation, with its tokens."""
        return answer.message(self.optional_tokenizer)

    def render(self, messages: Messages, /, **variables: Any) -> str:
        """Return the prompt for a conversation, as the template writes it.

        Raises:
            ConfigError: The folder has no chat template, or a message is malformed.
            CheckpointError: The template is broken or does what a template must not.
        """
        return self.chat_template.render(take_media(messages)[0] if self.media else messages, **variables)

    def encode(self, prompt: Prompt | None, answered: bool = False, /, **variables: Any) -> EncodedPrompt:
        """Return a prompt as the engine takes it.

        Args:
            prompt: Text, token ids, a list of messages, a text with pictures, or what this has returned before.
            answered: Whether it is to be answered, so that calls of tools are found in the answer.
            **variables: Of the template, and ``tool_choice``; for messages only.

        Raises:
            ConfigError: The prompt is of no such kind, or the folder lacks what it needs.
            MediaError: A picture or a video cannot be read.
        """
        if self.media is None or isinstance(prompt, EncodedPrompt):
            return self._encode(prompt, answered, **variables)
        return self._see(self.media, prompt, self.most_tokens, None, answered, **variables)

    def _see(
        self,
        media: MediaProcessor,
        prompt: Any,
        most: int,
        known: dict[Any, Any] | None = None,
        answered: bool = False,
        /,
        **variables: Any,
    ) -> EncodedPrompt:
        """Encode a prompt that may have pictures; what is known of them, by the object that was given, is not read.

        What is known are the objects too: what tells them apart does so only as long as they live.
        """
        given, sources = take_media(prompt)
        written = self._encode(given, answered, **variables)
        if known is not None:
            for source in sources:
                if (key := _key(source)) not in known:
                    known[key] = source, media.prepare(source)
            sources = [replace(source, value=known[_key(source)][1]) for source in sources]
        placed = media.place(written.token_ids, sources, most)
        return replace(placed, reasoning=written.reasoning, calls=written.calls)

    def _encode(self, prompt: Any, answered: bool = False, /, **variables: Any) -> EncodedPrompt:
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
        calls = self._tools.take(variables, self.call_format, answered=answered)
        text, ids = self._written(items, dict(variables), "" if calls is None else calls.begun)
        calls = None if calls is None else self._tools.finish(calls, text, ids, self.tokenizer)
        if calls is not None and calls.begun:
            return EncodedPrompt(ids, calls=calls)  # there is no room for reasoning
        field = field_of(variables.get("continue_final_message"))
        continued = None if field is None else continues_reasoning(items[-1], field, self.chat_template.modalities)
        return EncodedPrompt(ids, Reasoning.of(text, self.chat_template.sources.values(), continued), calls=calls)

    def _written(self, messages: list[Any], variables: dict[str, Any], behind: str) -> tuple[str, list[int]]:
        """What the template writes of a conversation, and the text behind it, and the token ids of both."""
        template, tokenizer = self.chat_template, self.tokenizer
        messages, given_ids = take_token_ids(messages)
        marked = self.literal or self._mentions_marks(messages, variables)
        ways = {name: variables.pop(name) for name in _WAYS & variables.keys()}
        given = conversation = template.checked(messages, **variables)
        writer = Writer(tokenizer, partial(tokenizer.encode, add_special_tokens=False), str, literal=False)
        if marked:
            control = tokenizer.control_tokens
            marks = control.choose_marks([*given, template.sources, template.special_tokens])
            # else only what stands for pictures stays text
            keep = () if self.literal or self.media is None else control.others(self.media.marks)
            others = (control.mark(value, marks, keep) for value in given[1:])
            conversation = Conversation(control.mark_messages(given.messages, marks, keep), *others)
            encode, plain = partial(control.encode_marked, marks=marks), partial(control.unmarked, marks=marks)
            writer = Writer(tokenizer, encode, plain, literal=self.literal)
        written = template.write(conversation, **ways)
        text = written + behind
        if not given_ids:
            return text, writer.encode(text)
        answers = [
            returned_answer(
                index, message, given.messages[index], tokenizer, lambda: self._tools.format_of(self.call_format)
            )
            for index, message in given_ids.items()
        ]
        turns = turns_in(written, template, conversation, [*given_ids], ways)
        return text, writer.joined(writer.pieces(text, zip(answers, turns, strict=True)))

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
    return id(source.value), source.kind, repr(sorted(source.settings.items()))


def _refuse(variables: dict[str, Any], found: str = "a plain prompt") -> None:
    given = [name for name, value in variables.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: only a list of messages can use this; found {found}")
