"""Configuration of Qwen3-Next models, with the defaults that transformers gives absent fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from pio.config.decoder import DecoderConfig
from pio.config.known_fields import NEUTRAL
from pio.errors import CheckpointError, UnsupportedModelError

DEFAULTS = (
    ("vocab_size", 151_936),
    ("hidden_size", 2048),
    ("intermediate_size", 5632),
    ("num_hidden_layers", 48),
    ("num_attention_heads", 16),
    ("num_key_value_heads", 2),
    ("head_dim", 256),
    ("hidden_act", "silu"),
    ("rms_norm_eps", 1e-6),
    ("max_position_embeddings", 32_768),
    ("tie_word_embeddings", False),
    ("attention_bias", False),
    ("num_experts", 512),
    ("num_experts_per_tok", 10),
    ("moe_intermediate_size", 512),
    ("shared_expert_intermediate_size", 512),
    ("norm_topk_prob", True),
    ("decoder_sparse_step", 1),
    ("linear_conv_kernel_dim", 4),
    ("linear_key_head_dim", 128),
    ("linear_value_head_dim", 128),
    ("linear_num_key_heads", 16),
    ("linear_num_value_heads", 32),
)


class Qwen3NextConfig(DecoderConfig, frozen=True):
    """config.json of a ``qwen3_next`` checkpoint."""

    silent_fields: ClassVar[frozenset[str]] = DecoderConfig.silent_fields | {
        "full_attention_interval",
        "output_router_logits",
        "partial_rotary_factor",
        "router_aux_loss_coef",
    }
    neutral_fields: ClassVar[Mapping[str, tuple[Any, ...]]] = {**NEUTRAL, "attn_output_gate": (True,)}
    kinds: ClassVar[frozenset[str]] = frozenset(("full_attention", "linear_attention"))
    turns_part: ClassVar[bool] = True

    model_type: Literal["qwen3_next"]
    """Architecture."""

    num_experts: int = Field(gt=0, le=1 << 16)
    """Experts of a sparse layer."""

    num_experts_per_tok: int = Field(gt=0, le=1 << 10)
    """Experts that a token goes to."""

    moe_intermediate_size: int = Field(gt=0, le=1 << 22)
    """Width of an expert."""

    shared_expert_intermediate_size: int = Field(gt=0, le=1 << 22)
    """Width of the expert that all tokens go to."""

    norm_topk_prob: bool
    """Whether the weights of a token's experts sum to 1."""

    decoder_sparse_step: int = Field(gt=0, le=4096)
    """Every how many layers one is sparse."""

    mlp_only_layers: tuple[int, ...] = Field(max_length=4096)
    """Layers that are dense all the same."""

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

    def sparse(self, layer: int) -> bool:
        """Return whether a layer is a mixture of experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self._parameters(self.num_experts)

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token meets."""
        return self._parameters(self.num_experts_per_tok)

    @property
    def last_feed_parameters(self) -> int:
        """Number of weights that one token meets in the last layer's feed-forward block."""
        return self._feed(self.num_hidden_layers - 1, self.num_experts_per_tok)

    def expert_share(self, sequences: int) -> float:
        """Return which part of the experts' weights a step of so many tokens reads, if all experts are as likely."""
        return 1.0 - (1.0 - self.num_experts_per_tok / self.num_experts) ** sequences

    def attention_operations(self, positions: float) -> float:
        """Return the operations of all layers that mix tokens, but their matrices, for one that sees so many others."""
        full = sum(map(self.attends, range(self.num_hidden_layers)))
        state = self.linear_num_value_heads * self.linear_key_head_dim * self.linear_value_head_dim
        attention = 4.0 * self.num_attention_heads * self.head_dim * positions
        return full * attention + (self.num_hidden_layers - full) * 7.0 * state  # decay, read, correct, read

    def _feed(self, layer: int, experts: int) -> int:
        """Weights of a feed-forward block with that many experts."""
        width = self.hidden_size
        if not self.sparse(layer):
            return 3 * width * self.intermediate_size
        inner = experts * self.moe_intermediate_size + self.shared_expert_intermediate_size
        return width * (self.num_experts + 1 + 3 * inner)

    def _mixer(self, layer: int) -> int:
        """Weights of what mixes tokens."""
        width = self.hidden_size
        if self.attends(layer):
            heads, pairs = self.num_attention_heads, self.num_key_value_heads
            biases = (2 * heads + 2 * pairs) * self.head_dim + width if self.attention_bias else 0
            return (3 * heads + 2 * pairs) * self.head_dim * width + 2 * self.head_dim + biases
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        values, heads = self.linear_num_value_heads * self.linear_value_head_dim, self.linear_num_value_heads
        projections = width * (2 * keys + 2 * values + 2 * heads) + values * width
        return projections + self.linear_conv_kernel_dim * (2 * keys + values) + 2 * heads + self.linear_value_head_dim

    def _parameters(self, experts: int) -> int:
        width, layers = self.hidden_size, range(self.num_hidden_layers)
        tables = (1 if self.tie_word_embeddings else 2) * self.vocab_size * width
        return tables + width + sum(self._mixer(i) + self._feed(i, experts) + 2 * width for i in layers)

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        for name, value in DEFAULTS:
            fields.setdefault(name, value)
        fields["rope"].setdefault("partial_rotary_factor", 0.25)
        dense: Any = fields.get("mlp_only_layers")
        dense = () if dense is None else dense
        fields["mlp_only_layers"] = tuple(cast("list[Any]", dense)) if isinstance(dense, list) else dense
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
        for name, value, of, whole in (
            ("num_experts_per_tok", self.num_experts_per_tok, "num_experts", self.num_experts),
            ("rotary_dim", self.rotary_dim, "head_dim", self.head_dim),
        ):
            if value > whole:
                raise CheckpointError(
                    f"config.json: {name} is {value}, expected at most {of}, {whole}; download the model again"
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
        for layer in self.mlp_only_layers:
            if not 0 <= layer < self.num_hidden_layers:
                raise CheckpointError(
                    f"config.json: mlp_only_layers has layer {layer}, expected 0 to {self.num_hidden_layers - 1}; "
                    "download the model again"
                )
        if not any(map(self.attends, range(self.num_hidden_layers))):
            raise CheckpointError(
                "config.json: layer_types has no full_attention, expected at least one layer of it; download the "
                "model again"
            )
