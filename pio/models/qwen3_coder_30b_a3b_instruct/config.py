"""Configuration of Qwen3 mixtures of experts, with the defaults that transformers gives absent fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pio.config.experts import SteppedExpertsConfig


class Qwen3MoeConfig(SteppedExpertsConfig, frozen=True):
    """config.json of a ``qwen3_moe`` checkpoint."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
    }
    other_names: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}  # as transformers 5 writes it

    model_type: Literal["qwen3_moe"]
    """Architecture."""

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        if fields.get("head_dim") is None:
            hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
            if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
                fields["head_dim"] = hidden // heads
        # a window holds for all layers of this architecture
        if fields.get("use_sliding_window"):
            fields["max_window_layers"] = 0
        super()._fill(fields)
