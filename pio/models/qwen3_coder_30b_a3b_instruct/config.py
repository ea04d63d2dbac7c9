"""Configuration of Qwen3 mixtures of experts, with the defaults that transformers gives absent fields."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from pio.config.decoder import DecoderConfig
from pio.errors import CheckpointError


class Qwen3MoeConfig(DecoderConfig, frozen=True):
    """config.json of a ``qwen3_moe`` checkpoint."""

    silent_fields: ClassVar[frozenset[str]] = DecoderConfig.silent_fields | {
        "num_local_experts",
        "output_router_logits",
        "router_aux_loss_coef",
    }

    model_type: Literal["qwen3_moe"]
    """Architecture."""

    num_experts: int = Field(gt=0, le=1 << 16)
    """Experts of a sparse layer."""

    num_experts_per_tok: int = Field(gt=0, le=1 << 10)
    """Experts that a token goes to."""

    moe_intermediate_size: int = Field(gt=0, le=1 << 22)
    """Width of an expert."""

    norm_topk_prob: bool
    """Whether the weights of a token's experts sum to 1."""

    decoder_sparse_step: int = Field(gt=0, le=4096)
    """Every how many layers one is sparse."""

    mlp_only_layers: tuple[int, ...] = Field(max_length=4096)
    """Layers that are dense all the same."""

    def sparse(self, layer: int) -> bool:
        """Return whether a layer is a mixture of experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self._parameters(self.num_experts)

    @property
    def active_parameters(self) -> int:
        """Number of weights that a token meets."""
        return self._parameters(self.num_experts_per_tok)

    @property
    def last_feed_parameters(self) -> int:
        """Number of weights that one token meets in the last layer's feed-forward block."""
        if not self.sparse(self.num_hidden_layers - 1):
            return super().last_feed_parameters
        return self.hidden_size * (self.num_experts + 3 * self.num_experts_per_tok * self.moe_intermediate_size)

    def _parameters(self, experts: int) -> int:
        """Weights, with that many experts in each sparse layer."""
        width, layers = self.hidden_size, range(self.num_hidden_layers)
        sparse = sum(self.sparse(layer) for layer in layers)
        each = self.num_experts * width + 3 * experts * width * self.moe_intermediate_size
        return super().parameters + sparse * (each - 3 * width * self.intermediate_size)

    def expert_share(self, sequences: int) -> float:
        """Return which part of the experts' weights a step of so many tokens reads, if all experts are as likely."""
        return 1.0 - (1.0 - self.num_experts_per_tok / self.num_experts) ** sequences

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        if fields.get("num_experts") is None and "num_local_experts" in fields:  # as transformers 5 writes it
            fields["num_experts"] = fields["num_local_experts"]
        for name, value in (
            ("vocab_size", 151_936),
            ("hidden_size", 2048),
            ("intermediate_size", 6144),
            ("num_hidden_layers", 24),
            ("num_attention_heads", 32),
            ("num_key_value_heads", 4),
            ("hidden_act", "silu"),
            ("rms_norm_eps", 1e-6),
            ("max_position_embeddings", 32_768),
            ("tie_word_embeddings", False),
            ("attention_bias", False),
            ("num_experts", 128),
            ("num_experts_per_tok", 8),
            ("moe_intermediate_size", 768),
            ("norm_topk_prob", False),
            ("decoder_sparse_step", 1),
        ):
            fields.setdefault(name, value)
        if fields.get("head_dim") is None:
            hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
            if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
                fields["head_dim"] = hidden // heads
        dense: Any = fields.get("mlp_only_layers")
        dense = () if dense is None else dense
        fields["mlp_only_layers"] = tuple(cast("list[Any]", dense)) if isinstance(dense, list) else dense
        # a window holds for all layers of this architecture
        if fields.get("use_sliding_window"):
            fields["max_window_layers"] = 0
        super()._fill(fields)

    def _check(self) -> None:
        super()._check()
        if self.num_experts_per_tok > self.num_experts:
            raise CheckpointError(
                f"config.json: num_experts_per_tok is {self.num_experts_per_tok}, expected at most num_experts, "
                f"{self.num_experts}; download the model again"
            )
        for layer in self.mlp_only_layers:
            if not 0 <= layer < self.num_hidden_layers:
                raise CheckpointError(
                    f"config.json: mlp_only_layers has layer {layer}, expected 0 to {self.num_hidden_layers - 1}; "
                    "download the model again"
                )
