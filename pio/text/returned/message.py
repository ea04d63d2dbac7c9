"""The message that an answer is in the conversation that goes on behind it, with the tokens that it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pio.errors import ConfigError
from pio.text.calling.calls import Calls
from pio.text.calling.tool_call import ToolCall
from pio.text.messages import TOKEN_IDS, check_messages
from pio.text.returned.said import Said, SaidCall
from pio.text.returned.spans import TokenSpans
from pio.text.returned.written import written_message
from pio.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class FinishedAnswer:
    """What there is of an answer at its end.

    Attributes:
        text: Without reasoning and calls.
        reasoning: Before it; None where there is none.
        calls: In it.
        token_ids: Its tokens, without one that ended it and is left out of the text.
        stop: The stop text that ended it and is left out; None where there is none.
        calling: How calls were found; None where they are text.
    """

    text: str
    reasoning: str | None = None
    calls: Sequence[ToolCall] = ()
    token_ids: Sequence[int] = ()
    stop: str | None = None
    calling: Calls | None = None

    def message(self, tokenizer: Tokenizer | None) -> dict[str, Any]:
        """Return it in OpenAI's form, with its tokens where these are what the message says, and no more.

        They are not where special tokens were left out of the text, and where a stop text begins within a token. A
        call whose text says more than its name and arguments do has that text with it, under ``raw``.

        Args:
            tokenizer: That the tokens are of; without it they are left out.
        """
        message = written_message(self.text, self.reasoning, [(call, self._is_whole(call)) for call in self.calls])
        if tokenizer is not None and tokenizer.joins and self._is(message, spans := self._spans(tokenizer)):
            message[TOKEN_IDS] = spans.ids
        return message

    def _is_whole(self, call: ToolCall) -> bool:
        """Say whether name and arguments of a call say all of it."""
        calling = self.calling
        return calling is not None and SaidCall(call.name, call.arguments, None).is_written(call, calling.form)

    def _spans(self, tokenizer: Tokenizer) -> TokenSpans:
        begun = () if self.calling is None else self.calling.begun_ids
        spans = TokenSpans(tokenizer, [*begun, *self.token_ids])
        end = None if self.stop is None else spans.ending(self.stop)
        return spans if end is None else TokenSpans(tokenizer, spans.ids[:end])

    def _is(self, message: dict[str, Any], spans: TokenSpans) -> bool:
        """Say whether tokens are what a message says; whether it can be given back as it is, too."""
        if not spans.ids or not spans.spoken:
            return False
        try:
            said = Said.of(check_messages([message])[0], message)
        except ConfigError:
            return False
        return said.reading(spans.text, None if self.calling is None else self.calling.form) is not None
