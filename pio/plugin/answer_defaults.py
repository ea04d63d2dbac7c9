"""What the files of a folder say of answers: the defaults for sampling, and which tokens end one."""

from __future__ import annotations

from itertools import chain
from typing import Any

from pio.config.decoder import DecoderConfig, eos_token_ids
from pio.config.generation import sampling_defaults
from pio.engine.penalties import check_token_ids
from pio.engine.sampling_params import SamplingParams
from pio.errors import CheckpointError, ConfigError
from pio.loading.checkpoint import Checkpoint
from pio.text.tokenizer import Tokenizer


def generation_defaults(checkpoint: Checkpoint, config: DecoderConfig, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the sampling fields that the folder has defaults for.

    Raises:
        CheckpointError: No request could run with them.
    """
    defaults = sampling_defaults(checkpoint.generation_config)
    params = SamplingParams.merge(defaults)
    if params.stop and tokenizer is None:
        raise CheckpointError(
            "generation_config.json: stop_strings cannot be found without tokenizer.json, which is missing; download "
            "it, or take the field out of the file"
        )
    try:
        check_token_ids(params, config.vocab_size)
    except ConfigError as error:
        raise CheckpointError(
            f"generation_config.json: {error}; correct the field or download the model again"
        ) from None
    return defaults


def end_tokens(checkpoint: Checkpoint, config: DecoderConfig, tokenizer: Tokenizer | None) -> frozenset[int]:
    """Return every token that one of the folder's files says ends an answer.

    Raises:
        CheckpointError: One is outside the vocabulary.
    """
    named = None if tokenizer is None else tokenizer.eos_token_id
    if named is not None and named >= config.vocab_size:
        named = None  # a token that was added to the tokenizer alone, which the model can never choose
    found = {
        "config.json: eos_token_id": config.eos_token_ids,
        "generation_config.json: eos_token_id": eos_token_ids(checkpoint.generation_config, "generation_config.json"),
        "tokenizer_config.json: eos_token": () if named is None else (named,),
    }
    for field, ids in found.items():
        if max(ids, default=0) >= config.vocab_size:
            raise CheckpointError(
                f"{field} is the token id {max(ids)}, which is outside the vocabulary, expected 0 to "
                f"{config.vocab_size - 1}; correct the file or download the model again"
            )
    return frozenset(chain.from_iterable(found.values()))
