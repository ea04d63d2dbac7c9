"""One answer: chooses its tokens, turns them into text, knows when to stop."""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from pio.engine.generation import FinishReason, Generation, Timings, TokenEvent, TokenLogprobs, Usage
from pio.engine.random_numbers import uniform
from pio.engine.request import Request
from pio.engine.stop_strings import StopStrings
from pio.tensor import Tensor

if TYPE_CHECKING:
    from pio.engine.sampling_params import SamplingParams
    from pio.engine.sequence import Sequence
    from pio.ops.sampling import Penalties, Sampler


class AnswerFinder(Protocol):
    """Finds in a stream of text where the answer begins, behind the reasoning."""

    @property
    def inside(self) -> bool:
        """Whether the text so far ends inside the reasoning."""
        ...

    def push(self, piece: str, /) -> tuple[str, str]:
        """Return the text before the answer, and the text of the answer, that became certain with this piece."""
        ...

    def flush(self) -> tuple[str, str]:
        """Return what is left of the two at the end."""
        ...


class Reasoning(Protocol):
    """How the answer of a conversation is told apart from the reasoning before it."""

    @property
    def possible(self) -> bool:
        """Whether the model may think before it answers."""
        ...

    def split(self, text: str, /) -> tuple[str | None, str, str]:
        """Split a whole text into reasoning, None where there is none, and answer.

        Returns:
            The two, and where the text ends: in the "reasoning", in the "gap" behind it or in the "answer".
        """
        ...

    def follow(self) -> AnswerFinder:
        """Return what finds the answer in one stream of text."""
        ...


class Detokenizer(Protocol):
    """Turns tokens into text as they come, whole characters only."""

    @property
    def skipped(self) -> Collection[int]:
        """Tokens that are left out of the text."""
        ...

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
        reasoning: Reasoning | None,
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
        self._reasoning = reasoning
        self._stops = StopStrings(params.stop_strings, include=params.include_stop)
        self._stopping = bool(params.stop_strings) and detokenizer is not None
        self._finder = reasoning.follow() if reasoning is not None and self._stopping else None
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
        if self._detokenizer is None:
            return ""
        hidden = ends and not self._params.include_stop
        if not self._stopping:
            return "" if hidden else self._detokenizer.push(token)
        if hidden or token in self._detokenizer.skipped:
            return self._hide(self._detokenizer, token)
        return self._show(self._detokenizer.push(token))

    def _show(self, text: str) -> str:
        """Look for stop texts, in the answer only where there is reasoning before it; return what is certain."""
        if self._finder is None:
            return self._stops.push(text)
        before, answer = self._finder.push(text)
        return before + self._stops.push(answer)

    def _hide(self, detokenizer: Detokenizer, token: int) -> str:
        """Look for stop texts in a token that is left out of the text; return what is certain with it."""
        if self._token_text is None or (self._finder is not None and self._finder.inside):
            return ""
        text, shown = self._token_text(token), ""
        if self._stops.names(text):  # the answer ends here: what was held back comes before this token
            shown = self._show(detokenizer.flush()) + self._found()
        return shown + self._stops.push(text, hidden=True)

    def _found(self) -> str:
        """Take what the finder held back, now that it is certain."""
        before, answer = ("", "") if self._finder is None else self._finder.flush()
        return before + self._stops.push(answer)

    def _rest(self) -> str:
        """What was held back, now that no more is to come."""
        if self._detokenizer is None or self._stops.matched is not None:
            return ""
        if not self._stopping:
            return self._detokenizer.flush()
        return self._show(self._detokenizer.flush()) + self._found() + self._stops.flush()

    def _generation(self, sequence: Sequence, finish: FinishReason, reason: str | int | None) -> Generation:
        text, reasoning, answered = "".join(self._pieces), None, True
        if self._reasoning is not None:
            reasoning, text, end = self._reasoning.split(text)
            answered = end == "answer" or (end == "gap" and finish == "stop")
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
            answered=answered,
        )
