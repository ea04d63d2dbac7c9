"""What a folder's generation_config.json asks for: sampling defaults, and what pio cannot do, refused by name."""

from __future__ import annotations

import logging
from typing import Any, Final, cast

from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading.model_file import shown

_log = logging.getLogger("pio.config")

# Sampling fields by the names that they have here too.
_SAMPLING: Final = frozenset(
    """bad_words_ids begin_suppress_tokens max_length max_new_tokens min_length min_new_tokens min_p
    no_repeat_ngram_size repetition_penalty suppress_tokens temperature top_k top_p""".split()
)

# What pio does not do, with the values that ask for nothing; null never asks for anything.
_REFUSED: Final[dict[str, tuple[Any, ...]]] = {
    "constraints": ([],),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_decoder_ids": ([],),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "max_time": (),
    "num_beam_groups": (1,),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "sequence_bias": ({}, []),
    "token_healing": (False,),
    "top_h": (),
    "typical_p": (1,),
    "watermarking_config": (),
}

# What changes no answer: tokens named for their own sake, speed, what else is returned, and options of beam search.
_SILENT: Final = frozenset(
    """_commit_hash _from_model_config assistant_confidence_threshold assistant_early_exit assistant_lookbehind
    bos_token_id cache_config cache_implementation compile_config continuous_batching_config decoder_start_token_id
    disable_compile do_sample early_stopping eos_token_id generation_kwargs is_assistant length_penalty low_memory
    max_matching_ngram_size num_assistant_tokens num_assistant_tokens_schedule output_attentions output_hidden_states
    output_logits output_scores pad_token_id prefill_chunk_size prompt_lookup_num_tokens remove_invalid_values
    renormalize_logits return_dict_in_generate return_legacy_cache stop_strings target_lookbehind transformers_version
    use_cache use_model_defaults""".split()
)


def sampling_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the sampling fields of a generation_config.json, under the names that they have in pio.

    Fields that nobody knows are named in one warning. End tokens are read apart.

    Args:
        raw: The object in the file.

    Raises:
        UnsupportedModelError: A field changes answers in a way that pio does not do; the message names it.
        CheckpointError: A field has a value of no sense.
    """
    given = {name: value for name, value in raw.items() if value is not None}
    for name, without_effect in _REFUSED.items():
        if name in given and given[name] not in without_effect:
            raise UnsupportedModelError(
                f"generation_config.json: {name} is {shown(given[name])}, which pio does not do; take the field out of "
                "the file to get answers without it"
            )
    unknown = sorted(given.keys() - _SAMPLING - _REFUSED.keys() - _SILENT)
    if unknown:
        names = ", ".join(shown(name) for name in unknown[:8]) + (" and others" if len(unknown) > 8 else "")
        _log.warning("generation_config.json: pio does not know %s; what they ask for is not done", names)
    found = {name: given[name] for name in sorted(_SAMPLING & given.keys())}
    _warn_of_least_length(found)
    stops: Any = given.get("stop_strings", [])
    texts: Any = [stops] if isinstance(stops, str) else stops
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in cast("list[Any]", texts)):
        raise _wrong("stop_strings", stops, "a text or a list of texts, none of them empty")
    if texts:
        found["stop"] = texts
    samples = given.get("do_sample", True)
    if not isinstance(samples, bool):
        raise _wrong("do_sample", samples, "true or false")
    if not samples:
        found["temperature"] = 0.0
    return found


def _warn_of_least_length(found: dict[str, Any]) -> None:
    """Say that answers go on behind the model's own end, which looks like a fault of the model where nobody says so."""
    for name in ("min_new_tokens", "min_length"):
        if found.get(name):
            _log.warning(
                "generation_config.json: %s=%s holds back the end of every answer until it is that long; a call with "
                "%s=0 lets the model end where it wants",
                name,
                shown(found[name]),
                name,
            )


def _wrong(field: str, found: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"generation_config.json: {field} is {shown(found)}, expected {expected}; correct the field or download the "
        "model again"
    )
