"""How the next token is chosen and when an answer ends: one validated, frozen set of fields for each request."""

from __future__ import annotations

import difflib
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
from pio.errors import CheckpointError, ConfigError

Defaults: TypeAlias = Mapping[str, Any]

Params: TypeAlias = "SamplingParams | Mapping[str, Any]"
"""How callers give sampling fields: checked before, or as a plain dict."""

# Two ways to say the same; within one source the second counts.
_SAME: Final = (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens"))

# What cannot be read off a field's numeric bounds.
_ALLOWED: Final = {
    "logit_bias": "a dict of token id to a number from -100 to 100",
    "stop": "a non-empty string or a list of them",
    "stop_token_ids": "a list of token ids",
    "suppress_tokens": "a list of token ids",
    "begin_suppress_tokens": "a list of token ids",
    "bad_words_ids": "a list of non-empty lists of token ids",
}


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

    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
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
        return cls(**_over(_over(found, _given(params)), _given(fields)))

    @model_validator(mode="wrap")
    @classmethod
    def _raise_config_error(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict):
            data = _given(cast("dict[str, Any]", data))
        try:
            return handler(data)
        except ValidationError as error:
            raise ConfigError(_explain(error, data)) from None

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
            f"params: found {_short(params)}, expected SamplingParams or a dict of its fields; single fields go by "
            "name, such as temperature=0"
        )
    _refuse_unknown(params)
    return {name: value for name, value in params.items() if value is not None}


def _refuse_unknown(fields: Mapping[Any, object]) -> None:
    """Raise ConfigError for the first name that is no field."""
    known = SamplingParams.model_fields
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name)[:64], known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(f"unknown sampling field {_short(name)}{hint} The fields are {', '.join(known)}.")


def _explain(error: ValidationError, data: object) -> str:
    """Name each field, what was found and what it takes."""
    fields = cast("dict[str, object]", data) if isinstance(data, dict) else {}
    seen: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        name = str(item["loc"][0]) if item["loc"] else "sampling parameters"
        found = fields.get(name, item["input"])
        seen.setdefault(name, f"{name}={_short(found)} cannot be used: expected {_allowed(name)}")
    return "; ".join(seen.values())


def _allowed(name: str) -> str:
    """What a field takes, in words."""
    field = SamplingParams.model_fields.get(name)
    if field is None:
        return "a dict of sampling fields"
    if name in _ALLOWED:
        return _ALLOWED[name]
    if field.annotation is bool:
        return "True or False"
    words = "a whole number" if "int" in str(field.annotation) else "a number"
    lower, upper = -math.inf, math.inf
    for bound in field.metadata:
        if (above := getattr(bound, "gt", None)) is not None:
            words += f" above {above}"
        lower = getattr(bound, "ge", lower)
        upper = getattr(bound, "le", upper)
    if lower > -math.inf:
        words += f" from {lower}" if upper < math.inf else f" of at least {lower}"
    if upper < math.inf:
        words += f" to {upper}" if lower > -math.inf else f" and at most {upper}"
    return words + (" or None" if field.default is None else "")


def _short(value: object) -> str:
    """A value as it stands in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
