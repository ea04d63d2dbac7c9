"""Makes the sequences of a request: one for each of its answers, with all that they need while they run."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from pio.engine.answer import Answer, MakeMessage
from pio.engine.answer_text import AnswerText, Detokenizer
from pio.engine.generation import Generation
from pio.engine.limits import Limits
from pio.engine.penalties import make_penalties
from pio.engine.random_numbers import derive_seed, fresh_seed
from pio.engine.request import Request
from pio.engine.sampling_params import SamplingParams
from pio.engine.sequence import Sequence
from pio.engine.thinking_limit import ThinkingLimit, ThinkingLimits
from pio.errors import ConfigError
from pio.structured.grammars import Grammars
from pio.structured.guide import Guide
from pio.text.encoded_prompt import EncodedPrompt, PromptEmbeddings

MakeDetokenizer: TypeAlias = Callable[..., Detokenizer]
"""Makes a detokenizer for one answer; the argument says whether special tokens are left out, a second one, where it is
given, which of them are not."""


@dataclass(frozen=True, slots=True)
class AnswerMaker:
    """What all answers of a model have in common.

    Attributes:
        limits: What prompts and parameters of this model may be.
        ends: Tokens that end an answer unless the request ignores them.
        never: Tokens that no answer holds.
        detokenizer: How to make text; without it texts are empty.
        token_text: Text of one token alone.
        token_bytes: Its bytes.
        message: Makes the message that an answer is; without it messages have no tokens.
        grammars: Compiles response formats; without it they are refused.
        thinking_limits: Makes the limits of reasoning; without it they are refused.
        turns: Whether it is of use where messages of a prompt end.
    """

    limits: Limits
    ends: frozenset[int]
    never: tuple[int, ...]
    detokenizer: MakeDetokenizer | None
    token_text: Callable[[int], str] | None
    token_bytes: Callable[[int], bytes] | None
    message: MakeMessage | None
    grammars: Grammars | None
    thinking_limits: ThinkingLimits | None
    turns: bool = False

    def make(
        self,
        request: Request[Generation],
        prompt: EncodedPrompt,
        params: SamplingParams,
        ids: array[int],
        embeddings: Iterable[PromptEmbeddings],
    ) -> list[Sequence]:
        """Return a request's sequences.

        Args:
            request: What takes their tokens and results.
            prompt: What to answer.
            params: How; checked.
            ids: The prompt's token ids; checked.
            embeddings: Of the prompt; checked.

        Raises:
            ConfigError: The ``response_format`` cannot be compiled, or contradicts the prompt; or there is no reasoning
                that ``max_thinking_tokens`` could limit.
        """
        self._check_shape(params, prompt)
        seed = fresh_seed() if params.seed is None else params.seed
        stops = frozenset(params.stop_token_ids)
        if not params.ignore_eos:
            stops |= self.ends
        most = self.limits.most_tokens(params, len(ids), thinks=prompt.may_think)
        family = object() if params.n > 1 else None
        turns = tuple(i + 1 for i, token in enumerate(ids) if token in self.ends) if self.turns else ()
        sequences: list[Sequence] = []
        for index in range(params.n):
            guide, limit = self._guide(params, prompt), self._limit(params, prompt)
            answer = Answer(
                request,
                index,
                params,
                seed=derive_seed(seed, index),
                max_new_tokens=most,
                stop_token_ids=stops,
                penalties=make_penalties(
                    params, ids, most, stops, self.limits.vocab_size, self.never, guide is not None
                ),
                text=self._text(prompt, params),
                token_text=self.token_text,
                token_bytes=self.token_bytes,
                message=self.message,
                guide=guide,
                thinking_limit=limit,
            )
            given = family, embeddings, prompt.media, prompt.positions, params.priority
            sequences.append(Sequence(answer, ids, 1, *given, salt=params.cache_salt, turns=turns))
        return sequences

    def _text(self, prompt: EncodedPrompt, params: SamplingParams) -> AnswerText:
        calls, make, skip = prompt.calls, self.detokenizer, params.skip_special_tokens
        keep = (calls.tag_ids,) if calls is not None and calls.tag_ids else ()
        detokenizer = None if make is None else make(skip, *keep)
        return AnswerText(params, detokenizer, self.token_text, prompt.reasoning, calls)

    def _check_shape(self, params: SamplingParams, prompt: EncodedPrompt) -> None:
        """Refuse a format that no answer to this prompt can have."""
        if params.response_format is None:
            return
        if prompt.calls is not None:
            raise ConfigError(
                "response_format contradicts tools: in that shape no answer could call one; leave one of them out, or "
                'give tool_choice="none"'
            )
        if self.grammars is None:
            raise ConfigError(
                "response_format: this model has no tokenizer, so that no answer has a text; leave it out"
            )

    def _guide(self, params: SamplingParams, prompt: EncodedPrompt) -> Guide | None:
        """Return what keeps one answer to the request's format; None where it has none."""
        wanted = params.response_format
        return None if self.grammars is None or wanted is None else self.grammars.guide(wanted, prompt.reasoning)

    def _limit(self, params: SamplingParams, prompt: EncodedPrompt) -> ThinkingLimit | None:
        """Return what ends the reasoning of one answer; None where nothing is to."""
        most = params.max_thinking_tokens
        if most is None:
            return None
        if self.thinking_limits is None:
            raise ConfigError(
                "max_thinking_tokens: this model has no tokenizer, so that no answer has reasoning; leave it out"
            )
        return self.thinking_limits.limit(most, prompt.reasoning, params.logprobs)
