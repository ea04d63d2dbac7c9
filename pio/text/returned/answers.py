"""Messages that bring the tokens with them that they were: taken out of a conversation, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.calling.call_format import CallFormat
from pio.text.messages import TOKEN_IDS
from pio.text.plain_data import is_record, record
from pio.text.returned.reading import Reading
from pio.text.returned.said import Said
from pio.text.returned.spans import TokenSpans
from pio.text.tokenizer import Tokenizer

_REMEDY = "give the message as result.message returned it, or leave token_ids out"


@dataclass(frozen=True, slots=True)
class ReturnedAnswer:
    """A message, and the tokens that it was.

    Attributes:
        index: Which of the messages.
        said: What it says.
        spans: Its tokens.
        form: How its calls are written; None where that is not known, or there are none.
        reading: How their text says the same; None where calls are written in a format that is not known.
    """

    index: int
    said: Said
    spans: TokenSpans
    form: CallFormat | None
    reading: Reading | None


def take_token_ids(messages: Sequence[Any]) -> tuple[list[Any], dict[int, Mapping[Any, Any]]]:
    """Return messages without their tokens, and those that had some, by their index."""
    without, found = list[Any](messages), dict[int, Mapping[Any, Any]]()
    for index, message in enumerate(messages):
        fields = record(message, f"messages[{index}]") if is_record(message) else None
        if fields is not None and TOKEN_IDS in fields:
            without[index] = {name: value for name, value in fields.items() if name != TOKEN_IDS}
            if fields[TOKEN_IDS] is not None:
                found[index] = fields
    return without, found


def returned_answer(
    index: int,
    given: Mapping[Any, Any],
    checked: Mapping[str, Any],
    tokenizer: Tokenizer,
    form_of: Callable[[], CallFormat | None],
) -> ReturnedAnswer:
    """Check that the tokens of a message are what it says.

    Args:
        index: Which of the messages it is.
        given: The message.
        checked: The same as ``check_messages`` returns it.
        tokenizer: That its tokens are to be of.
        form_of: Says how calls are written; asked where the message has some.

    Raises:
        ConfigError: They are no tokens of this tokenizer, or say anything else; the error names the message.
    """
    name = f'messages[{index}]["{TOKEN_IDS}"]'
    if checked["role"] != "assistant":
        raise ConfigError(f"{name}: only the assistant's messages have tokens of their own; {_REMEDY}")
    spans = TokenSpans(tokenizer, _checked(given[TOKEN_IDS], name, tokenizer))
    said = Said.of(checked, given)
    form = form_of() if said.calls else None
    if said.calls and form is None:
        return ReturnedAnswer(index, said, spans, None, None)
    reading = said.reading(spans.text, form)
    if reading is None:
        raise ConfigError(f"{name} are tokens of another text than the message has; {_REMEDY}")
    return ReturnedAnswer(index, said, spans, form, reading)


def _checked(value: object, name: str, tokenizer: Tokenizer) -> list[int]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{name} is {shown(value)}; a list of token ids was expected")
    ids: list[int] = []
    for number in cast("Sequence[Any]", value):
        try:
            ids.append(tokenizer.check_id(number))
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        if not tokenizer.bytes_of[ids[-1]]:
            raise ConfigError(f"{name}: the token id {number} stands for no text; {_REMEDY}")
    return ids
