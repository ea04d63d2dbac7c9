"""What a finished request returns."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from pio.text.reasoning import Kind

FinishReason: TypeAlias = Literal["stop", "length"]


class TokenLogprobs(NamedTuple):
    """How likely one token of the answer was, from the raw logits, before penalties and temperature.

    Attributes:
        token_id: The token that was chosen.
        text: Its text alone; empty without a tokenizer, U+FFFD for bytes that are part of a character.
        logprob: Its natural log probability.
        top: The likeliest tokens with their log probabilities, best first; equals by id.
        bytes: Exactly what it adds to a text, as ``model.token_bytes`` returns it for any token; together they are
            the answer in UTF-8, special tokens included.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, float], ...]
    bytes: builtins.bytes = b""


class TokenEvent(NamedTuple):
    """One token as it is generated, and the text that became certain with it.

    All texts of an answer together are what was streamed; those of a kind are what the result has. Text of two kinds
    that becomes certain at once comes in an event for each, with the same ``position``.

    Attributes:
        sample: Which of the request's n answers it belongs to.
        token_id: The token.
        text: Whole characters, nothing that may still become a stop text or a tag.
        logprobs: The token's log probabilities, where the request asks for them; with its first event only.
        kind: What the text is: "text" of the answer, "reasoning" before it, or "markup", the tags and line ends that
            tell them apart. Without text: where the answer stands.
        position: Which token of the answer it is, from 0.
    """

    sample: int
    token_id: int
    text: str
    logprobs: TokenLogprobs | None
    kind: Kind
    position: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens of the answer, the one that ended it included; of all answers where the request asked
            for several.
        image_tokens: Tokens of the prompt that stand for pictures and videos.
    """

    prompt_tokens: int
    completion_tokens: int
    image_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and answers together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds.

    Attributes:
        queue: From submission until its prompt began to run; for further answers (``n``) that go on from the prompt
            of another one, until it was computed.
        prefill: From there to its first token.
        time_to_first_token: From submission to its first token.
        decode: From its first token to its last.
        tokens_per_second: Tokens after the first, divided by ``decode``; 0 for an answer of one token.
    """

    queue: float
    prefill: float
    time_to_first_token: float
    decode: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer.

    Attributes:
        text: The answer; empty where the model has no tokenizer.
        token_ids: Its tokens, the one that ended it included.
        finish_reason: "stop" at an end token or a stop text, "length" at ``max_new_tokens`` or the end of the context.
        stop_reason: The stop text or the token id that ended it, or None.
        logprobs: One entry a token where the request asks for them, else None.
        reasoning: What the model thought before it answered, in a conversation; None where it did not think.
        usage: Token counts.
        timings: Seconds of each phase.
        seed: The seed that draws this answer again.
        answered: Whether there is an answer: not where it ended inside the reasoning, nor where ``max_new_tokens``
            ended it right behind that. ``text`` is empty then.
        samples: All n answers, this one first, where the request asked for more than one; each with its own usage.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    stop_reason: str | int | None
    logprobs: list[TokenLogprobs] | None
    reasoning: str | None
    usage: Usage
    timings: Timings
    seed: int
    answered: bool = True
    samples: tuple[Generation, ...] = ()
