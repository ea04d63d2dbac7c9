"""What a request asks of the choice of its tokens, beside the draw: penalties, biases and bans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from pio.engine.sampling_params import SamplingParams
from pio.errors import ConfigError
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties


def make_penalties(
    params: SamplingParams,
    prompt: Sequence[int],
    max_new_tokens: int,
    ends: Iterable[int],
    vocab_size: int,
    never: Sequence[int] = (),
    guided: bool = False,
) -> Penalties | None:
    """Return what changes the logits of one answer, or None where nothing does.

    Args:
        params: The request's.
        prompt: Its token ids.
        max_new_tokens: The most tokens of the answer.
        ends: Tokens that end it.
        vocab_size: Token ids are below it.
        never: Tokens that no answer holds, whatever the request says.
        guided: Whether something else says for every token which ones may come.
    """
    bans = _bans(params, prompt, ends, vocab_size, (*params.suppress_tokens, *never), guided)
    if (
        bans is None
        and params.repetition_penalty == 1
        and not params.presence_penalty
        and not params.frequency_penalty
        and not params.logit_bias
    ):
        return None
    return Penalties(
        prompt,
        max_new_tokens,
        vocab_size,
        repetition=params.repetition_penalty,
        presence=params.presence_penalty,
        frequency=params.frequency_penalty,
        bias=params.logit_bias,
        bans=bans,
    )


def check_token_ids(params: SamplingParams, vocab_size: int) -> None:
    """Refuse token ids that the model does not have.

    Raises:
        ConfigError: The message names field and id.
    """
    fields = {
        "stop_token_ids": params.stop_token_ids,
        "logit_bias": params.logit_bias,
        "suppress_tokens": params.suppress_tokens,
        "begin_suppress_tokens": params.begin_suppress_tokens,
        "bad_words_ids": chain.from_iterable(params.bad_words_ids),
    }
    for name, ids in fields.items():
        for token in ids:
            if token >= vocab_size:
                raise ConfigError(f"{name}: token id {token} is outside the vocabulary; expected 0 to {vocab_size - 1}")


def _bans(
    params: SamplingParams,
    prompt: Sequence[int],
    ends: Iterable[int],
    vocab_size: int,
    always: Sequence[int],
    guided: bool,
) -> Bans | None:
    least = params.min_new_tokens
    if "min_new_tokens" not in params.model_fields_set:
        least = max(0, params.min_length - len(prompt))
    if (
        not always
        and not params.begin_suppress_tokens
        and not params.bad_words_ids
        and not params.no_repeat_ngram_size
        and not least
        and not guided
    ):
        return None
    return Bans(
        prompt,
        vocab_size,
        always=always,
        first=params.begin_suppress_tokens,
        early=ends if least else (),
        early_tokens=least,
        sequences=params.bad_words_ids,
        ngram=params.no_repeat_ngram_size,
        guided=guided,
    )
