"""Fields of config.json beside those of a config class: without effect, refused by name, or warned of."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading.model_file import shown

# Fields that say nothing about what is computed in inference, or that are read elsewhere.
SILENT: Final = frozenset(
    """_attn_implementation _attn_implementation_autoset _name_or_path architectures attention_dropout
    attention_probs_dropout_prob attn_implementation attn_pdrop auto_map bos_token_id chunk_size_feed_forward
    classifier_dropout cross_attention_hidden_size decoder_start_token_id dropout dtype embd_pdrop
    eos_token_id finetuning_task gradient_checkpointing hidden_dropout hidden_dropout_prob id2label
    initializer_range is_decoder label2id max_window_layers model_type num_nextn_predict_layers
    original_max_position_embeddings output_attentions output_hidden_states pad_token_id partial_rotary_factor prefix
    pretraining_tp problem_type quantization_config
    resid_pdrop return_dict rope_parameters rope_scaling rope_theta sep_token_id task_specific_params
    tf_legacy_loss tie_encoder_decoder tokenizer_class torch_dtype torchscript transformers_version
    unsloth_fixed unsloth_version use_bfloat16 use_cache use_sliding_window
    """.split()
)

# Fields by which architectures change what is computed, with the values that change nothing. A config class that
# computes one has it as a field of its own.
NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "add_cross_attention": (False,),
    "alibi": (False,),
    "attention_chunk_size": (),
    "attention_multiplier": (),
    "attn_logit_softcapping": (),
    "attn_output_gate": (False,),
    "attn_temperature_tuning": (False, 0),
    "clip_qkv": (),
    "dual_chunk_attention_config": (),
    "embedding_multiplier": (1,),
    "final_logit_softcapping": (),
    "hidden_activation": ("silu",),
    "is_encoder_decoder": (False,),
    "lm_head_bias": (False,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "mlp_bias": (False,),
    "moe_layer_freq": (1,),
    "n_group": (1,),
    "n_shared_experts": (0,),
    "no_rope_layer_interval": (),
    "no_rope_layers": ([],),
    "pruned_heads": ({},),
    "qkv_bias": (False,),
    "query_pre_attn_scalar": (),
    "residual_multiplier": (1,),
    "rope_interleave": (False,),
    "rope_interleaved": (False,),
    "rope_local_base_freq": (),
    "routed_scaling_factor": (1,),
    "scale_emb": (1,),
    "scoring_func": ("softmax",),
    "shared_expert_intermediate_size": (0,),
    "sliding_window_pattern": (),
    "topk_group": (1,),
    "topk_method": ("greedy",),
    "use_bias": (False,),
    "use_mrope": (False,),
    "use_rope": (True,),
}

# What rope_parameters may hold; of mrope_section, text alone takes no notice.
_ROPE: Final = frozenset(
    """attention_factor beta_fast beta_slow factor finetuned high_freq_factor low_freq_factor mrope_interleaved
    mrope_section mscale mscale_all_dim original_max_position_embeddings partial_rotary_factor rope_theta rope_type
    truncate type
    """.split()
)
_NAMED: Final = 20  # unknown fields in a warning

_log = logging.getLogger("pio.config")


def check_fields(
    raw: Mapping[str, Any],
    rope: Mapping[str, Any],
    *,
    known: Collection[str],
    neutral: Mapping[str, tuple[Any, ...]],
    heads: tuple[str, ...],
) -> None:
    """Look at every field of config.json that a config class does not read; warn once of those that nobody knows.

    Args:
        raw: The object in config.json.
        rope: Its rotary parameters, in one form.
        known: Fields that are read, or have no effect.
        neutral: Fields that pio does not compute, with the values that have no effect.
        heads: How names of architectures end whose output the model has.

    Raises:
        CheckpointError: ``architectures`` is no list of names.
        UnsupportedModelError: A field asks for something that pio does not compute.
    """
    _check_architectures(raw.get("architectures"), heads)
    _warn_of_code(raw.get("auto_map"))
    unknown: list[str] = []
    for name, value in raw.items():
        if value is None or name in known:
            continue
        if name not in neutral:
            unknown.append(name)
        elif value not in neutral[name]:
            raise UnsupportedModelError(
                f"config.json: {name} is {shown(value)}, which pio does not compute for this architecture; choose "
                "another model, or remove the field if the weights were trained without it"
            )
    unknown += [f"rope_parameters.{name}" for name in rope if name not in _ROPE]
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        names = ", ".join(shown(name) for name in sorted(unknown)[:_NAMED]) + more
        _log.warning("config.json: pio does not know %s; the answers may differ from the model's", names)


def _check_architectures(value: Any, heads: tuple[str, ...]) -> None:
    """Refuse a model whose output is no next token, such as a classifier; its weights hardly differ."""
    if value is None:
        return
    names = cast("list[Any]", value) if isinstance(value, list) else []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f"config.json: architectures is {shown(cast('Any', value))}, expected a list of names; correct the field "
            "or download the model again"
        )
    if names and not any(name.endswith(heads) for name in names):
        raise UnsupportedModelError(
            f"config.json: architectures is {', '.join(shown(name) for name in names[:3])}, whose output is no next "
            f"token: pio runs names that end in {' or '.join(heads)}, and no classifiers, reward or embedding models; "
            "choose the model's version that writes text"
        )


def _warn_of_code(value: Any) -> None:
    """Tell that a folder's own code is not run; transformers, unless told to trust it, does not run it either."""
    if not isinstance(value, dict):
        return
    code = next((v for k, v in cast("dict[str, Any]", value).items() if k.startswith("AutoModel")), None)
    if code is not None:
        _log.warning(
            "config.json: auto_map names code of the folder's own, %s, which pio never runs; the model is computed as "
            "its model_type says",
            shown(code),
        )
