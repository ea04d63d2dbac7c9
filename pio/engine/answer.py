"""One answer: how its tokens are chosen, what becomes of them, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from pio.engine import request_log
from pio.engine.generation import FinishReason, Generation, Timings, TokenEvent, TokenLogprobs, Usage
from pio.engine.random_numbers import mix, uniform
from pio.ops.sampling import Choice
from pio.structured.finished_format import FinishedFormat
from pio.text.returned.message import FinishedAnswer

if TYPE_CHECKING:
    from pio.engine.answer_text import AnswerText
    from pio.engine.request import Request
    from pio.engine.sampling_params import SamplingParams
    from pio.engine.sequence import Sequence
    from pio.engine.thinking_limit import ThinkingLimit
    from pio.ops.penalties import Penalties
    from pio.ops.token_mask import TokenMask
    from pio.structured.guide import Guide
    from pio.tensor import Tensor
    from pio.text.calling.tool_call import ToolCall


MakeMessage: TypeAlias = "Callable[[FinishedAnswer], dict[str, Any]]"
"""Makes the message that a finished answer is in its conversation."""


class Answer:
    """Takes one token after another and makes an answer of them.

    Attributes:
        seed: What its draws depend on, beside the logits and the position.
    """

    def __init__(
        self,
        request: Request[Generation],
        index: int,
        params: SamplingParams,
        *,
        seed: int,
        max_new_tokens: int,
        stop_token_ids: frozenset[int],
        penalties: Penalties | None,
        text: AnswerText,
        token_text: Callable[[int], str] | None,
        token_bytes: Callable[[int], bytes] | None,
        message: MakeMessage | None = None,
        guide: Guide | None = None,
        thinking_limit: ThinkingLimit | None = None,
    ) -> None:
        """Prepare answer ``index`` of a request; everything that its tokens need is allocated here."""
        self.seed = seed
        self._request = request
        self._index = index
        self._max_new_tokens = max_new_tokens
        self._stop_token_ids = stop_token_ids
        self._text = text
        self._token_text = token_text
        self._token_bytes = token_bytes
        self._message = message
        self._guide = guide  # penalties have bans then, whose mask it sets
        self._limit = thinking_limit
        self._logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self._choice = Choice(
            0.0 if params.greedy else params.temperature,
            params.top_k,
            params.top_p,
            params.min_p,
            penalties=penalties,
            logprobs=params.logprobs,
        )
        self._chosen = self._choice  # how the last token was
        self._mixed_seed = None if params.greedy else mix(seed)
        self._mixed_again = None if self._mixed_seed is None else mix(~self._mixed_seed)  # mix(0) is 0, as of seed 0
        self._begun = self._first_token = 0.0
        self._result: Generation | None = None
        self._deadline, first = (
            math.inf if seconds is None else seconds for seconds in (params.deadline, params.first_token_deadline)
        )
        self._first_deadline = min(first, self._deadline)

    @property
    def request(self) -> Request[Generation]:
        """Who asked for it."""
        return self._request

    @property
    def index(self) -> int:
        """Which of the request's answers it is."""
        return self._index

    @property
    def dead(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._request.dead

    @property
    def expires(self) -> float:
        """When its time is over, by ``time.perf_counter``: that of its first token, and then that of all."""
        return self._request.queued + self.seconds

    @property
    def seconds(self) -> float:
        """How long it was given until then, from the request on."""
        return self._deadline if self._first_token else self._first_deadline

    def expire(self, sequence: Sequence) -> None:
        """End it with what there is."""
        count = len(sequence.tokens) - sequence.prompt_length
        for kind, text, call in self._text.finish() if count else ():
            self._request.push(TokenEvent(self._index, sequence.tokens[-1], text, None, kind, count - 1, call))
        self._result = self._generation(sequence, "deadline", None)

    def finish(self) -> None:
        """Hand the result over, if there is one."""
        if self._result is not None:
            request_log.finished(self, self._result)
            self._request.complete(self._index, self._result)

    def room(self, sequence: Sequence) -> int:
        """Return how many more tokens it takes."""
        return self._max_new_tokens - len(sequence.tokens) + sequence.prompt_length

    def begin(self) -> None:
        """Note when the model started on the prompt."""
        self._begun = self._begun or perf_counter()

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        self._request.fail(error)

    def choose(self, sequence: Sequence, row: int) -> Choice:
        """Return how to choose the next token from a row of logits."""
        self._chosen = (self._limit and self._limit.choice) or self._choice
        if self._guide is not None:
            self._allow(None)
        return self._aimed(sequence, row, self._mixed_seed)

    def choose_again(self, sequence: Sequence, row: int) -> Choice | None:
        """Return how to choose once more, where the answer's format does not allow the token that was chosen.

        The first is drawn from all tokens, so that a format costs next to nothing, and changes nothing, while the model
        keeps to it by itself; the second from those of its mask. Where no filter is set, a token t that it allows comes
        with the chance p(t) + (1 - A) p(t) / A = p(t) / A, where A is the chance of all of them: as if only they had
        been there. Only where a text must come the mask has one of them, which gets all of 1 - A.

        Returns:
            None where the token that was chosen is to be taken.
        """
        guide, token = self._guide, self._chosen.token
        if guide is None or self._chosen is not self._choice or token < 0 or guide.allows(token):
            return None
        self._allow(guide.mask)
        return self._aimed(sequence, row, self._mixed_again)

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        """Take the token that was chosen; return whether it ends the answer."""
        token, penalties = self._chosen.token, self._choice.penalties
        if token < 0:
            raise self._chosen.refusal(logits)
        if penalties is not None:
            penalties.count(token)
        logprobs = None if self._logprobs is None else self._describe(token, self._logprobs)
        sequence.append(token)
        count = len(sequence.tokens) - sequence.prompt_length
        if count == 1:
            self._first_token = perf_counter()
            request_log.began(self)
        ends, full = token in self._stop_token_ids, count >= self._max_new_tokens
        complete = self._guide is not None and self._follow(self._guide, token)
        for kind, text, call in self._text.push(token, ends=ends, last=ends or full or complete):
            self._request.push(TokenEvent(self._index, token, text, logprobs, kind, count - 1, call))
            logprobs = None
        matched = self._text.stops.matched
        if not (ends or full or complete or matched is not None):
            if self._limit is not None:
                self._limit.follow(self._text.thinking)
            if self._guide is not None:
                self._guide.follow(self._text.state, "" if self._guide.answering else self._text.begun)
            return False
        reason = matched or (token if ends else None)
        finish: FinishReason = "stop" if ends or complete or matched is not None else "length"
        self._result = self._generation(sequence, finish, reason)
        return True

    def _allow(self, mask: TokenMask | None) -> None:
        """Have the next token be one of a mask; of all where there is none."""
        penalties = self._choice.penalties
        assert penalties is not None and penalties.bans is not None  # there are, where there is a guide
        penalties.bans.mask = mask

    def _aimed(self, sequence: Sequence, row: int, mixed: int | None) -> Choice:
        self._chosen.aim(row, 0.0 if mixed is None else uniform(mixed, len(sequence.tokens)))
        return self._chosen

    def _follow(self, guide: Guide, token: int) -> bool:
        """Have the answer's format follow a token; return whether it is complete, so that nothing else can come."""
        if self._chosen is self._choice:  # what closes the reasoning belongs to no answer
            guide.take(token)
        if guide.answering:
            self._text.begin_answer()
        return guide.complete

    def _describe(self, token: int, described: list[TokenLogprobs]) -> TokenLogprobs:
        text = self._token_text(token) if self._token_text else ""
        data = self._token_bytes(token) if self._token_bytes else b""
        found = TokenLogprobs(token, text, self._chosen.logprob, self._chosen.likeliest, data)
        described.append(found)
        return found

    def _generation(self, sequence: Sequence, finish: FinishReason, reason: str | int | None) -> Generation:
        prompt, count = sequence.prompt_length, len(sequence.tokens) - sequence.prompt_length
        calls = tuple(self._text.calls)
        now = perf_counter()
        begun, first = self._begun or now, self._first_token or now  # one that expired may have neither
        decode = now - first if count > 1 else 0.0
        timings = Timings(
            queue=begun - self._request.queued,
            prefill=first - begun,
            time_to_first_token=first - self._request.queued,
            decode=decode,
            tokens_per_second=(count - 1) / decode if decode > 0 else 0.0,
            drafted=sequence.drafted,
            accepted=sequence.accepted,
            checks=sequence.checks,
            speculation=sequence.speculation,
        )
        return Generation(
            text=self._text.answer,
            token_ids=sequence.tokens[prompt:].tolist(),
            finish_reason="tool_calls" if calls and isinstance(reason, int) else finish,
            stop_reason=reason,
            logprobs=self._logprobs,
            reasoning=self._text.reasoning,
            usage=Usage(prompt, count, sequence.image_tokens, max(0, sequence.cached_tokens)),
            timings=timings,
            seed=self.seed,
            answered=count > 0 and self._text.answered(finish == "stop"),
            tool_calls=calls,
            read_parsed=self._finished(finish, reason),
            own_message=self._own_message(sequence, calls, reason),
        )

    def _own_message(
        self, sequence: Sequence, calls: tuple[ToolCall, ...], reason: str | int | None
    ) -> dict[str, Any] | None:
        """The message that the answer is; made now, so that a result that is kept keeps nothing of the model."""
        make, text = self._message, self._text
        if make is None:
            return None
        end = len(sequence.tokens) - (isinstance(reason, int) and not text.includes_stop)
        ids = sequence.tokens[sequence.prompt_length : end]
        stop = reason if isinstance(reason, str) and not text.includes_stop else None
        return make(FinishedAnswer(text.answer, text.reasoning, calls, ids, stop, text.calling))

    def _finished(self, finish: FinishReason, reason: str | int | None) -> Callable[[], Any] | None:
        """What reads the answer in the shape that was asked for; None where it is cut short, or no shape was."""
        guide = self._guide
        if guide is None or finish != "stop" or not guide.complete or not (reason is None or reason in guide.ends):
            return None
        return FinishedFormat(guide.response_format, self._text.answer).value
