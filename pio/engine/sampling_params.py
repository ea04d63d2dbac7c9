"""How the next token is chosen and when an answer ends: one validated, frozen set of fields for each request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeAlias, cast

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from pio.config.described_fields import DescribedFields
from pio.engine.refused_fields import check_known, explained, short
from pio.errors import CheckpointError, ConfigError
from pio.structured.response_format import ResponseFormat

Defaults: TypeAlias = Mapping[str, Any]

Params: TypeAlias = "SamplingParams | Mapping[str, Any]"
"""How callers give sampling fields: checked before, or as a plain dict."""

# Two ways to say the same; within one source the second counts.
_SAME: Final = (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens"))
_LEAST: Final = _SAME[1]


class SamplingParams(DescribedFields, frozen=True):
    """Everything a request can say about choosing tokens and about stopping.

    A field that is None is as if it were not given.

    Raises:
        ConfigError: A field is unknown, out of its range, or contradicts another; the message names it.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    max_new_tokens: int = Field(default=256, ge=1)
    """The answer ends after this many tokens, or earlier where the context or the cache ends. Where it is not given, a
    conversation with a model that thinks before it answers may take the rest of the context."""

    max_length: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together; counts only where ``max_new_tokens`` is not given."""

    max_thinking_tokens: int | None = Field(default=None, ge=0)
    """A model that thinks before it answers has so many tokens for that: then its reasoning is closed, as its chat
    template closes it, and the answer begins. 0 closes it at once."""

    min_new_tokens: int = Field(default=0, ge=0)
    """No end token and none of ``stop_token_ids`` comes before the answer has this many tokens; a stop text still ends
    it."""

    min_length: int = Field(default=0, ge=0)
    """The same for prompt and answer together; counts only where ``min_new_tokens`` is not given."""

    temperature: float = Field(default=1.0, ge=0, le=100)
    """Logits are divided by it before the draw. 0 (and anything below 1e-5) always takes the likeliest token."""

    top_k: int = Field(default=0, ge=0)
    """Draw among the k likeliest tokens only; among equals the lower ids. 0 turns it off."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together reach this probability. 1 turns it off."""

    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw among tokens at least this fraction as likely as the likeliest. 0 turns it off."""

    repetition_penalty: float = Field(default=1.0, ge=0.01, le=10)  # below, logits overflow sooner or later
    """Divides positive and multiplies negative logits of tokens in the prompt or the answer. 1 turns it off."""

    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from the logit of every token that the answer already has."""

    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from a token's logit once for each time the answer already has it."""

    logit_bias: dict[int, float] = Field(default_factory=dict[int, float])
    """Added to the logits of these token ids, after the penalties; -100 forbids a token in practice."""

    suppress_tokens: list[int] | tuple[int, ...] = ()
    """Tokens that never come."""

    begin_suppress_tokens: list[int] | tuple[int, ...] = ()
    """Tokens that do not come first."""

    bad_words_ids: list[list[int]] | list[tuple[int, ...]] | tuple[tuple[int, ...], ...] = ()
    """Runs of tokens that the answer never completes, not even one that the prompt began."""

    no_repeat_ngram_size: int = Field(default=0, ge=0)
    """No run of so many tokens comes twice in prompt and answer. 0 turns it off."""

    seed: int | None = Field(default=None, ge=0, le=2**64 - 1)
    """The same seed gives the same answer, whatever runs beside it. None takes a fresh one; the result names it."""

    stop: str | list[str] | tuple[str, ...] = ()
    """Texts that end the answer as soon as one of them is complete, also across the borders of tokens. Special tokens
    count as written out. In a conversation the reasoning before the answer is not looked through."""

    stop_token_ids: list[int] | tuple[int, ...] = ()
    """Tokens that end the answer, besides the end tokens of the model."""

    ignore_eos: bool = False
    """Go on after the model's own end tokens."""

    logprobs: int | None = Field(default=None, ge=0, le=100)
    """Report each token's log probability and this many of the likeliest alternatives; 0 for the token alone."""

    n: int = Field(default=1, ge=1, le=256)
    """How many answers to draw, each with its own seed derived from ``seed``."""

    skip_special_tokens: bool = True
    """Leave the tokenizer's special tokens out of the text."""

    include_stop: bool = False
    """Keep the stop text, or the text of the stop token, that ended the answer."""

    deadline: float | None = Field(default=None, gt=0)
    """Seconds from the request to the end of its answer: it ends then, at the next step, with what there is."""

    first_token_deadline: float | None = Field(default=None, gt=0)
    """Seconds from the request to its first token; an answer that has none by then ends without any."""

    priority: int = Field(default=0, ge=-100, le=100)
    """Who goes first where not all requests can run: each step counts as if it had come ten seconds earlier."""

    cache_salt: str | None = Field(default=None, min_length=1)
    """Beginnings of prompts that were computed before are found by requests with the same salt only, so that nobody can
    tell by the time that an answer takes what others have asked."""

    response_format: Any = None
    """The shape of the answer, which the choice of each token keeps to: a pydantic class; a JSON schema, alone or in
    ``{"type": "json_schema", "json_schema": {"schema": …}}``; ``{"type": "json_object"}``; ``"regex:…"``, which the
    whole answer matches; a list of texts, one of which it is; or ``{"type": "grammar", "grammar": …}`` with a grammar
    in llguidance's form of Lark. What a model thinks before it answers is not held to it."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < 1e-5

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop texts, always as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @classmethod
    def merge(cls, defaults: Defaults | None = None, params: Params | None = None, **fields: Any) -> Self:
        """Put together what applies to a request; the later source wins, field by field, and None says nothing.

        How long an answer is at least by default does not hold for one with a ``response_format``, which ends where its
        shape does, nor for one that the caller wants shorter.

        Args:
            defaults: Sampling fields of the checkpoint, as ``pio.config.generation`` reads them.
            params: The caller's parameters; only fields that were set when it was made count. A dict of fields does
                as well.
            **fields: Single fields given with the call.

        Raises:
            CheckpointError: The checkpoint's defaults are out of range.
            ConfigError: A field of the caller is unknown, out of range or contradictory.
        """
        try:
            found = _given(cls(**(defaults or {})))
        except ConfigError as error:
            raise CheckpointError(f"generation_config.json: {error}") from None
        asked = _over(_given(params), _given(fields))
        if asked.get("response_format") is not None:
            found = {name: value for name, value in found.items() if name not in _LEAST}
        if found.get("min_new_tokens", 0) > asked.get("max_new_tokens", math.inf):
            found = {name: value for name, value in found.items() if name != "min_new_tokens"}
        return cls(**_over(found, asked))

    @model_validator(mode="wrap")
    @classmethod
    def _raise_config_error(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict):
            data = _given(cast("dict[str, Any]", data))
        try:
            return handler(data)
        except ValidationError as error:
            raise ConfigError(explained(error, data, cls.model_fields)) from None

    @field_validator("logit_bias")
    @classmethod
    def _check_bias(cls, value: dict[int, float]) -> dict[int, float]:
        if any(token < 0 or not -100 <= bias <= 100 for token, bias in value.items()):
            raise ValueError
        return value

    @field_validator("stop")
    @classmethod
    def _check_stop(cls, value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
        strings = (value,) if isinstance(value, str) else tuple(value)
        if not all(strings):
            raise ValueError
        return strings

    @field_validator("stop_token_ids", "suppress_tokens", "begin_suppress_tokens")
    @classmethod
    def _check_tokens(cls, value: list[int] | tuple[int, ...]) -> tuple[int, ...]:
        if any(token < 0 for token in value):
            raise ValueError
        return tuple(value)

    @field_validator("response_format")
    @classmethod
    def _check_format(cls, value: Any) -> ResponseFormat | None:
        return None if value is None else ResponseFormat.of(value)

    @field_validator("bad_words_ids")
    @classmethod
    def _check_runs(cls, value: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        if any(not run or min(run) < 0 for run in value):
            raise ValueError
        return tuple(map(tuple, value))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.n > 1 and self.greedy:
            raise ConfigError(
                f"n={self.n} contradicts temperature={self.temperature}: without sampling all answers are the same; "
                "set a temperature above 0, or n=1"
            )
        if self.include_stop and self.ignore_eos and not self.stop and not self.stop_token_ids:
            raise ConfigError(
                "include_stop=True contradicts ignore_eos=True without stop or stop_token_ids: nothing can stop the "
                "answer; set stop, or leave include_stop out"
            )
        if self.response_format is not None:
            for name in ("ignore_eos", "include_stop"):
                if getattr(self, name):
                    raise ConfigError(
                        f"{name}=True contradicts response_format: the answer ends where its shape does, and holds "
                        f"nothing else; leave {name} out"
                    )
            for name in reversed(_LEAST):
                if getattr(self, name):
                    raise ConfigError(
                        f"{name}={getattr(self, name)} contradicts response_format: the answer ends where its shape "
                        "does; say how long it is to be there, by minLength or minItems"
                    )
        return self


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two sources of fields together, where the second wins, over another way to say the same too."""
    replaced = {other for pair in _SAME for name in pair if name in above for other in pair}
    return {name: value for name, value in below.items() if name not in replaced} | above


def _given(params: Params | None) -> dict[str, Any]:
    """The fields that say something, all of them known."""
    if params is None:
        return {}
    if isinstance(params, SamplingParams):
        return {name: getattr(params, name) for name in params.model_fields_set}
    if not isinstance(cast("object", params), Mapping):
        raise ConfigError(
            f"params: found {short(params)}, expected SamplingParams or a dict of its fields; single fields go by "
            "name, such as temperature=0"
        )
    check_known(params, SamplingParams.model_fields)
    return {name: value for name, value in params.items() if value is not None}
