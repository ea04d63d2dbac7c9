"""Configuration of Qwen3-Next models, with the defaults that transformers gives absent fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from pio.config.experts import SteppedExpertsConfig
from pio.config.known_fields import NEUTRAL
from pio.errors import CheckpointError, UnsupportedModelError


class Qwen3NextConfig(SteppedExpertsConfig, frozen=True):
    """config.json of a ``qwen3_next`` checkpoint."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    }
    silent_fields: ClassVar[frozenset[str]] = SteppedExpertsConfig.silent_fields | {
        "full_attention_interval",
        "partial_rotary_factor",
    }
    neutral_fields: ClassVar[Mapping[str, tuple[Any, ...]]] = {**NEUTRAL, "attn_output_gate": (True,)}
    kinds: ClassVar[frozenset[str]] = frozenset(("full_attention", "linear_attention"))
    turns_part: ClassVar[bool] = True

    model_type: Literal["qwen3_next"]
    """Architecture."""

    shared_expert_intermediate_size: int = Field(gt=0, le=1 << 22)
    """Width of the expert that all tokens go to."""

    linear_conv_kernel_dim: int = Field(ge=1, le=8)
    """Tokens that the convolution of a recurrent layer sees."""

    linear_key_head_dim: int = Field(gt=0, le=65536)
    """Width of a key of a recurrent layer."""

    linear_value_head_dim: int = Field(gt=0, le=65536)
    """Width of a value of a recurrent layer."""

    linear_num_key_heads: int = Field(gt=0, le=65536)
    """Query and key heads of a recurrent layer."""

    linear_num_value_heads: int = Field(gt=0, le=65536)
    """Value heads of a recurrent layer, each with a state of its own."""

    @property
    def rotary_dim(self) -> int:
        """How many elements of a head turn."""
        return int(self.head_dim * self.rope.get("partial_rotary_factor", 1.0))

    @property
    def shared_width(self) -> int:
        """Width of the expert that all tokens go to."""
        return self.shared_expert_intermediate_size

    @property
    def router_parameters(self) -> int:
        """Number of weights of a sparse layer that choose experts, and that gate the shared one."""
        return (self.num_experts + 1) * self.hidden_size

    def attention_operations(self, positions: float) -> float:
        """Return the operations of all layers that mix tokens, but their matrices, for one that sees so many others."""
        full = sum(map(self.attends, range(self.num_hidden_layers)))
        state = self.linear_num_value_heads * self.linear_key_head_dim * self.linear_value_head_dim
        attention = 4.0 * self.num_attention_heads * self.head_dim * positions
        return full * attention + (self.num_hidden_layers - full) * 7.0 * state  # decay, read, correct, read

    def _mixer_parameters(self, layer: int) -> int:
        width = self.hidden_size
        if self.attends(layer):
            heads, pairs = self.num_attention_heads, self.num_key_value_heads
            biases = (2 * heads + 2 * pairs) * self.head_dim + width if self.attention_bias else 0
            return (3 * heads + 2 * pairs) * self.head_dim * width + 2 * self.head_dim + biases
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        values, heads = self.linear_num_value_heads * self.linear_value_head_dim, self.linear_num_value_heads
        projections = width * (2 * keys + 2 * values + 2 * heads) + values * width
        return projections + self.linear_conv_kernel_dim * (2 * keys + values) + 2 * heads + self.linear_value_head_dim

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        fields["rope"].setdefault("partial_rotary_factor", 0.25)
        layers, every = fields["num_hidden_layers"], fields.get("full_attention_interval", 4)
        if fields.get("layer_types") is None and isinstance(layers, int) and 0 < layers <= 4096:
            if isinstance(every, bool) or not isinstance(every, int) or every < 1:
                raise CheckpointError(
                    f"config.json: full_attention_interval is {str(every)[:80]}, expected a whole number of at least "
                    "1; correct the field or download the model again"
                )
            fields["layer_types"] = [
                "full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(layers)
            ]
        super()._fill(fields)

    def _check(self) -> None:
        super()._check()
        if self.rotary_dim > self.head_dim:
            raise CheckpointError(
                f"config.json: rotary_dim is {self.rotary_dim}, expected at most head_dim, {self.head_dim}; download "
                "the model again"
            )
        if self.linear_num_value_heads % self.linear_num_key_heads:
            raise CheckpointError(
                f"config.json: linear_num_value_heads is {self.linear_num_value_heads}, expected a multiple of "
                f"linear_num_key_heads, {self.linear_num_key_heads}; download the model again"
            )
        if self.sliding_window is not None:
            raise UnsupportedModelError(
                f"config.json: sliding_window is {self.sliding_window} by use_sliding_window, and this architecture "
                "sees all positions; set use_sliding_window to false, or choose another model"
            )
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            raise CheckpointError(
                f"config.json: partial_rotary_factor turns {self.rotary_dim} of head_dim {self.head_dim} elements, "
                "expected an even number of at least 2; download the model again"
            )
        if not any(map(self.attends, range(self.num_hidden_layers))):
            raise CheckpointError(
                "config.json: layer_types has no full_attention, expected at least one layer of it; download the "
                "model again"
            )
