"""The dense architecture ``qwen3``, which models of several sizes have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pio.config.decoder import DecoderConfig


class Qwen3Architecture(DecoderConfig, frozen=True):
    """config.json of a ``qwen3`` checkpoint, with the defaults that transformers gives absent fields."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": False,
        "attention_bias": False,
    }
    same_as: ClassVar[Mapping[str, str]] = {"num_key_value_heads": "num_attention_heads"}

    model_type: Literal["qwen3"]
    """Architecture."""
