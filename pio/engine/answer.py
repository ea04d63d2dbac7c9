"""One answer: chooses its tokens, turns them into text, knows when to stop."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pio.engine.generation import FinishReason, Generation, Timings, TokenEvent, TokenLogprobs, Usage
from pio.engine.random_numbers import uniform
from pio.engine.request import Request
from pio.engine.stop_strings import StopStrings
from pio.tensor import Tensor

if TYPE_CHECKING:
    from pio.engine.sampling_params import SamplingParams
    from pio.engine.sequence import Sequence
    from pio.ops.sampling import Penalties, Sampler

SplitReasoning: TypeAlias = Callable[[str], tuple[str | None, str]]
"""Splits a whole text into reasoning (None where there is none) and answer."""


class Detokenizer(Protocol):
    """Turns tokens into text as they come, whole characters only."""

    def push(self, token_id: int, /) -> str:
        """Return the text that became certain with this token."""
        ...

    def flush(self) -> str:
        """Return what is left at the end."""
        ...


class Answer:
    """Takes one row of logits after another and makes an answer of them.

    Attributes:
        seed: What its draws depend on, beside the logits and the position.
    """

    scores_prompt = False

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
        detokenizer: Detokenizer | None,
        token_text: Callable[[int], str] | None,
        token_bytes: Callable[[int], bytes] | None,
        split_reasoning: SplitReasoning | None,
    ) -> None:
        """Prepare answer ``index`` of a request; everything that its tokens need is allocated here."""
        self.seed = seed
        self._request = request
        self._index = index
        self._params = params
        self._max_new_tokens = max_new_tokens
        self._stop_token_ids = stop_token_ids
        self._penalties = penalties
        self._detokenizer = detokenizer
        self._token_text = token_text
        self._token_bytes = token_bytes
        self._split_reasoning = split_reasoning
        self._stops = StopStrings(params.stop_strings, include=params.include_stop)
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        # fields of a pydantic model are slow to read, and these are read for every token
        self._greedy = params.greedy
        self._draw = (params.temperature, params.top_k, params.top_p, params.min_p)
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

    def take(self, sequence: Sequence, logits: Tensor, row: int, sampler: Sampler) -> bool:
        """Choose the next token; return whether it ends the answer."""
        token = self._choose(sequence, logits, row, sampler)
        logprobs = self._describe(logits, row, token, sampler)
        sequence.tokens.append(token)
        count = len(sequence.tokens) - sequence.prompt_length
        if count == 1:
            self._first_token = perf_counter()
        ends = token in self._stop_token_ids
        text = self._to_text(token, ends)
        stopped = ends or self._stops.matched is not None
        finished = stopped or count >= self._max_new_tokens
        if finished:
            text += self._rest()
            stopped = ends or self._stops.matched is not None
        self._pieces.append(text)
        self._request.push(TokenEvent(self._index, token, text, logprobs))
        if finished:
            reason = self._stops.matched or (token if ends else None)
            self._request.complete(self._index, self._generation(sequence, "stop" if stopped else "length", reason))
        return finished

    def _choose(self, sequence: Sequence, logits: Tensor, row: int, sampler: Sampler) -> int:
        penalties = self._penalties
        if self._greedy:
            token = sampler.likeliest(logits, row, penalties)
        else:
            u = uniform(self.seed, len(sequence.tokens))
            token = sampler.draw(logits, row, u, *self._draw, penalties)
        if penalties is not None:
            penalties.count(token)
        return token

    def _describe(self, logits: Tensor, row: int, token: int, sampler: Sampler) -> TokenLogprobs | None:
        if self._logprobs is None:
            return None
        logprob, top = sampler.logprobs(logits, row, token, self._params.logprobs or 0)
        text = self._token_text(token) if self._token_text else ""
        described = TokenLogprobs(token, text, logprob, top, self._token_bytes(token) if self._token_bytes else b"")
        self._logprobs.append(described)
        return described

    def _to_text(self, token: int, ends: bool) -> str:
        if self._detokenizer is None or (ends and not self._params.include_stop):
            return ""
        return self._stops.push(self._detokenizer.push(token))

    def _rest(self) -> str:
        """What was held back, now that no more is to come."""
        if self._detokenizer is None or self._stops.matched is not None:
            return ""
        return self._stops.push(self._detokenizer.flush()) + self._stops.flush()

    def _generation(self, sequence: Sequence, finish: FinishReason, reason: str | int | None) -> Generation:
        text, reasoning = "".join(self._pieces), None
        if self._split_reasoning is not None:
            reasoning, text = self._split_reasoning(text)
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
            text=text,
            token_ids=sequence.tokens[prompt:].tolist(),
            finish_reason=finish,
            stop_reason=reason,
            logprobs=self._logprobs,
            reasoning=reasoning,
            usage=Usage(prompt, count),
            timings=timings,
            seed=self.seed,
        )
