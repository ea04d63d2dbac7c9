"""What a finished request returns."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from pio.text.calling.tool_call import ToolCall
from pio.text.reasoning import Kind
from pio.text.returned.written import written_message

FinishReason: TypeAlias = Literal["stop", "length", "deadline", "tool_calls"]
Speculated: TypeAlias = Literal["on", "off", "no_match", "not_worth_it"]


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
        kind: What the text is: "text" of the answer, "reasoning" before it, "tool_call" of a call, tags included, or
            "markup", the tags and line ends that tell them apart. Without text: where the answer stands.
        position: Which token of the answer it is, from 0.
        call: The call that is complete with this text; its ``raw`` is all text of the kind "tool_call" since the one
            before it.
    """

    sample: int
    token_id: int
    text: str
    logprobs: TokenLogprobs | None
    kind: Kind
    position: int
    call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens of the answer, the one that ended it included; of all answers where the request asked
            for several.
        image_tokens: Tokens of the prompt that stand for pictures and videos.
        cached_tokens: Tokens of the prompt that were in the cache already and were not computed again.
    """

    prompt_tokens: int
    completion_tokens: int
    image_tokens: int = 0
    cached_tokens: int = 0

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
        prefill: From there to its first token, or to the end of an answer that has none.
        time_to_first_token: From submission to its first token, or to that end.
        decode: From its first token to its last.
        tokens_per_second: Tokens after the first, divided by ``decode``; 0 for an answer of one token.
        drafted: Tokens that steps computed on the chance that they come next.
        accepted: Those of them that came, and are in the answer.
        checks: Steps with such tokens.
        speculation: "on" where there were any. Else why not: "no_match", for nothing in prompt and answers so far went
            on as this one did, or there was no room to look that up; "not_worth_it", for what was found was too
            unlikely to be right, or steps of several tokens take too long here; "off", by the option of that name or
            because the cache of a plugin has states that cannot wait for tokens to stand.
    """

    queue: float
    prefill: float
    time_to_first_token: float
    decode: float
    tokens_per_second: float
    drafted: int = 0
    accepted: int = 0
    checks: int = 0
    speculation: Speculated = "off"


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer.

    Attributes:
        text: The answer, without reasoning and calls; empty where the model has no tokenizer.
        token_ids: Its tokens, the one that ended it included.
        finish_reason: "stop" at an end token, at a stop text or where ``response_format`` is complete, "length" at
            ``max_new_tokens`` or the end of the context; "tool_calls" in the place of "stop" where an end token ended
            an answer that has calls, whatever they are worth; "deadline" where its time was over, when there may be no
            token yet.
        stop_reason: The stop text or the token id that ended it, or None.
        logprobs: One entry a token where the request asks for them, else None.
        reasoning: What the model thought before it answered, in a conversation; None where it did not think.
        usage: Token counts.
        timings: Seconds of each phase.
        seed: The seed that draws this answer again.
        answered: Whether there is an answer: not where it ended inside the reasoning, where ``max_new_tokens`` or a
            deadline ended it right behind that, nor where its time was over before its first token. ``text`` is empty
            then.
        samples: All n answers, this one first, where the request asked for more than one; each with its own usage.
        tool_calls: What the model wrote as calls of the declared tools, in order; also those that cannot be read.
        read_parsed: Makes ``parsed``; None without ``response_format``, or where the answer is cut short.
        own_message: What ``message`` returns a copy of, plain data; None makes one without tokens of the other fields.
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
    tool_calls: tuple[ToolCall, ...] = ()
    read_parsed: Callable[[], Any] | None = field(default=None, repr=False, compare=False)
    own_message: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def message(self) -> dict[str, Any]:
        """The answer as the message that it is when the conversation goes on, in OpenAI's form; a new dict each time.

        It has ``role``, ``content``, where there are any ``reasoning_content`` and ``tool_calls``, and ``token_ids``:
        the tokens that the answer was, with which it stands in the next prompt in the place of those that its text
        would give, so that the prompt begins with what the cache has. It is plain data: ``json.dumps`` takes it. Tokens
        are left out where they are not what the message says: special ones were left out of the text, or a stop text
        begins within one.
        """
        if self.own_message is None:
            return written_message(self.text, self.reasoning, [(call, False) for call in self.tool_calls])
        return deepcopy(self.own_message)

    @property
    def parsed(self) -> Any:
        """What the answer holds in the shape of ``response_format``; made when it is first read.

        An instance of a pydantic class, the decoded data of other JSON, or the text itself, such as the one that was
        chosen. None without a format, and where the answer is not complete: where it was cut (``finish_reason`` is
        "length" or "deadline") or a stop text or a token of ``stop_token_ids`` ended it (``stop_reason`` names it).

        Raises:
            RefusedAnswerError: The class's own checks, which a schema cannot say, refuse the answer.
        """
        return None if self.read_parsed is None else self.read_parsed()
