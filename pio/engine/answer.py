"""One answer: how its tokens are chosen, what becomes of them, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from pio.engine.generation import FinishReason, Generation, Timings, TokenEvent, TokenLogprobs, Usage
from pio.engine.random_numbers import mix, uniform
from pio.ops.sampling import Choice

if TYPE_CHECKING:
    from pio.engine.answer_text import AnswerText
    from pio.engine.request import Request
    from pio.engine.sampling_params import SamplingParams
    from pio.engine.sequence import Sequence
    from pio.ops.penalties import Penalties
    from pio.tensor import Tensor


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
        self._logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self._choice = Choice(
            0.0 if params.greedy else params.temperature,
            params.top_k,
            params.top_p,
            params.min_p,
            penalties=penalties,
            logprobs=params.logprobs,
        )
        self._mixed_seed = None if params.greedy else mix(seed)
        self._submitted = perf_counter()
        self._begun = self._first_token = 0.0

    @property
    def dead(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._request.dead

    def begin(self) -> None:
        """Note when the model started on the prompt."""
        self._begun = self._begun or perf_counter()

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        self._request.fail(error)

    def choose(self, sequence: Sequence, row: int) -> Choice:
        """Return how to choose the next token from a row of logits."""
        mixed = self._mixed_seed
        self._choice.aim(row, 0.0 if mixed is None else uniform(mixed, len(sequence.tokens)))
        return self._choice

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        """Take the token that was chosen; return whether it ends the answer."""
        token, penalties = self._choice.token, self._choice.penalties
        if token < 0:
            raise self._choice.refusal(logits)
        if penalties is not None:
            penalties.count(token)
        logprobs = None if self._logprobs is None else self._describe(token, self._logprobs)
        sequence.tokens.append(token)
        count = len(sequence.tokens) - sequence.prompt_length
        if count == 1:
            self._first_token = perf_counter()
        ends, full = token in self._stop_token_ids, count >= self._max_new_tokens
        for kind, text in self._text.push(token, ends=ends, last=ends or full):
            self._request.push(TokenEvent(self._index, token, text, logprobs, kind, count - 1))
            logprobs = None
        matched = self._text.stops.matched
        if not (ends or full or matched is not None):
            return False
        reason = matched or (token if ends else None)
        finish: FinishReason = "stop" if ends or matched is not None else "length"
        self._request.complete(self._index, self._generation(sequence, finish, reason))
        return True

    def _describe(self, token: int, described: list[TokenLogprobs]) -> TokenLogprobs:
        text = self._token_text(token) if self._token_text else ""
        data = self._token_bytes(token) if self._token_bytes else b""
        found = TokenLogprobs(token, text, self._choice.logprob, self._choice.likeliest, data)
        described.append(found)
        return found

    def _generation(self, sequence: Sequence, finish: FinishReason, reason: str | int | None) -> Generation:
        prompt, count = sequence.prompt_length, len(sequence.tokens) - sequence.prompt_length
        decode = perf_counter() - self._first_token if count > 1 else 0.0
        timings = Timings(
            queue=self._begun - self._submitted,
            prefill=self._first_token - self._begun,
            time_to_first_token=self._first_token - self._submitted,
            decode=decode,
            tokens_per_second=(count - 1) / decode if decode > 0 else 0.0,
        )
        return Generation(
            text=self._text.answer,
            token_ids=sequence.tokens[prompt:].tolist(),
            finish_reason=finish,
            stop_reason=reason,
            logprobs=self._logprobs,
            reasoning=self._text.reasoning,
            usage=Usage(prompt, count, sequence.image_tokens),
            timings=timings,
            seed=self.seed,
            answered=self._text.answered(finish == "stop"),
        )
