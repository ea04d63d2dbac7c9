"""Configuration of Qwen3 dense models, with the defaults that transformers gives absent fields."""

from __future__ import annotations

from typing import Any, Literal

from pio.config.decoder import DecoderConfig


class Qwen3Config(DecoderConfig, frozen=True):
    """config.json of a ``qwen3`` checkpoint."""

    model_type: Literal["qwen3"]
    """Architecture."""

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        for name, value in (
            ("vocab_size", 151_936),
            ("hidden_size", 4096),
            ("intermediate_size", 22_016),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("head_dim", 128),
            ("hidden_act", "silu"),
            ("rms_norm_eps", 1e-6),
            ("max_position_embeddings", 32_768),
            ("tie_word_embeddings", False),
            ("attention_bias", False),
            ("num_key_value_heads", 32),
        ):
            fields.setdefault(name, value)
        if fields["num_key_value_heads"] is None:
            fields["num_key_value_heads"] = fields["num_attention_heads"]
        super()._fill(fields)
