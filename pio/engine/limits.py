"""What a model has room for: how long prompts and answers may be, and which tokens there are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from pio.engine.penalties import check_token_ids
from pio.engine.sampling_params import SamplingParams
from pio.errors import CapacityError, ConfigError


class Limits(NamedTuple):
    """What requests are held to before they are queued.

    Attributes:
        vocab_size: Tokens that there are.
        context: Tokens of prompt and answer together that the model can see.
        max_length: How many of them the cache has room for too.
        has_text: Whether tokens can be made text.
    """

    vocab_size: int
    context: int
    max_length: int
    has_text: bool

    def check_prompt(self, prompt: Sequence[int], room: int) -> array[int]:
        """Return the prompt as an array, if it fits with ``room`` tokens to spare.

        Raises:
            ConfigError: It is empty or has ids outside the vocabulary.
            CapacityError: It does not fit.
        """
        try:
            ids = array("i", prompt)
        except (TypeError, OverflowError) as error:
            raise ConfigError(f"prompt: expected token ids below {self.vocab_size}, found {error}") from None
        if not ids:
            raise ConfigError("prompt: found no tokens, expected at least one")
        for worst in (min(ids), max(ids)):
            if not 0 <= worst < self.vocab_size:
                raise ConfigError(
                    f"prompt: token id {worst} at index {ids.index(worst)} is outside the vocabulary; expected 0 to "
                    f"{self.vocab_size - 1}"
                )
        if len(ids) + room > self.max_length:
            name = "context" if self.max_length == self.context else "cache"
            raise CapacityError(
                f"prompt: found {len(ids)} tokens, and the {name} holds {self.max_length}"
                f"{' with the answer' if room else ''}; shorten the prompt"
                f"{'' if name == 'context' else ', or give the cache more memory'}"
            )
        return ids

    def check_params(self, params: SamplingParams) -> None:
        """Refuse what this model cannot do.

        Raises:
            ConfigError: A token id is outside the vocabulary, or there are stop texts and no tokenizer.
        """
        check_token_ids(params, self.vocab_size)
        if params.stop and not self.has_text:
            raise ConfigError(
                "stop: this model has no tokenizer, so stop texts cannot be found; use stop_token_ids instead"
            )

    def most_tokens(self, params: SamplingParams, prompt: int, *, thinks: bool) -> int:
        """Return how many tokens the answer to a prompt of so many may have; at least one.

        Raises:
            CapacityError: The prompt is as long as ``max_length`` alone.
            ConfigError: The answer is to be longer at least than at most.
        """
        most, name = params.max_new_tokens, "max_new_tokens"
        if name not in params.model_fields_set:
            if params.max_length is not None:
                most, name = params.max_length - prompt, "max_length"
                if most <= 0:
                    raise CapacityError(
                        f"prompt: found {prompt} tokens, and max_length={params.max_length} leaves no room for an "
                        "answer; shorten the prompt, or give max_new_tokens, which takes its place"
                    )
            elif thinks:
                return self.max_length - prompt
        if params.min_new_tokens > most:
            raise ConfigError(
                f"min_new_tokens={params.min_new_tokens} contradicts {name}={getattr(params, name)}: behind a prompt "
                f"of {prompt} tokens the answer would have to be longer than it may be; change one of them"
            )
        return min(most, self.max_length - prompt)
