"""Configuration of GLM-4.7-Flash, with the defaults that transformers gives absent fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from pio.config.experts import ExpertsConfig
from pio.errors import CheckpointError, UnsupportedModelError

FeedKind = Literal["dense", "sparse"]


class Glm4MoeLiteConfig(ExpertsConfig, frozen=True):
    """config.json of a ``glm4_moe_lite`` checkpoint. A head of ``head_dim`` is what turns: ``qk_rope_head_dim``."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 154_880,
        "hidden_size": 2048,
        "intermediate_size": 10_240,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 47,
        "num_attention_heads": 20,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 202_752,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "q_lora_rank": 768,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "rope_interleave": True,
        "n_routed_experts": 64,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.8,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "num_nextn_predict_layers": 1,
    }
    other_names: ClassVar[Mapping[str, str]] = {  # transformers knows both
        "n_routed_experts": "num_local_experts",
        "qk_rope_head_dim": "head_dim",
    }
    same_as: ClassVar[Mapping[str, str]] = {
        "num_key_value_heads": "num_attention_heads",
        "head_dim": "qk_rope_head_dim",
    }
    silent_fields: ClassVar[frozenset[str]] = ExpertsConfig.silent_fields | {
        "first_k_dense_replace",
        "partial_rotary_factor",
        "qk_head_dim",
    }
    qk_norm: ClassVar[bool] = False  # latents have norms instead

    model_type: Literal["glm4_moe_lite"]
    """Architecture."""

    q_lora_rank: int | None = Field(gt=0, le=1 << 20)
    """Width of the latent that queries are made of; None makes them of the residual stream itself."""

    kv_lora_rank: int = Field(gt=0, le=1 << 20)
    """Width of the latent that keys and values are made of."""

    qk_nope_head_dim: int = Field(gt=0, le=65536)
    """Width of a query or key without the part that turns."""

    qk_rope_head_dim: int = Field(gt=0, le=65536, multiple_of=2)
    """Width of the part that turns; of keys all heads share it."""

    v_head_dim: int = Field(gt=0, le=65536)
    """Width of a value."""

    rope_interleave: bool
    """Whether rotary embedding turns the pairs (2 i, 2 i + 1) rather than (i, i + half)."""

    n_routed_experts: int = Field(gt=0, le=1 << 16)
    """Experts of a sparse layer, of which a token chooses some."""

    n_shared_experts: int = Field(gt=0, le=1 << 10)
    """Experts that every token goes to; they are stored as one."""

    n_group: int = Field(gt=0, le=1 << 16)
    """Equal groups of experts."""

    topk_group: int = Field(gt=0, le=1 << 16)
    """From how many groups a token chooses."""

    routed_scaling_factor: float = Field(gt=0, lt=1e30)
    """Factor of these weights."""

    topk_method: Literal["noaux_tc"]
    """How experts are chosen: by probability and a stored bias."""

    scoring_func: Literal["sigmoid"]
    """Each expert has a probability of its own."""

    mlp_layer_types: tuple[FeedKind, ...]
    """Kind of feed-forward block of each layer."""

    num_nextn_predict_layers: int = Field(ge=0, le=4096)
    """Layers behind the last that predict further tokens; they are stored, and not used."""

    @property
    def experts(self) -> int:
        """Experts of a sparse layer, of which a token chooses."""
        return self.n_routed_experts

    def sparse(self, layer: int) -> bool:
        """Return whether a layer is a mixture of experts."""
        return self.mlp_layer_types[layer] == "sparse"

    @property
    def shared_width(self) -> int:
        """Width of the experts that every token goes to."""
        return self.n_shared_experts * self.moe_intermediate_size

    @property
    def router_parameters(self) -> int:
        """Number of weights of a sparse layer that choose experts: a matrix, and what corrects the choice."""
        return (self.hidden_size + 1) * self.n_routed_experts

    @property
    def score_scale(self) -> float:
        """Factor of the scores of queries and keys; YaRN with ``mscale_all_dim`` makes it larger."""
        scale = 1.0 / math.sqrt(self.qk_nope_head_dim + self.qk_rope_head_dim)
        strength = self.rope.get("mscale_all_dim")
        if self.rope["rope_type"] == "default" or not strength:
            return scale
        factor = self.rope.get("factor", 1.0)
        return scale * (0.1 * strength * math.log(factor) + 1.0) ** 2 if factor > 1 else scale

    def _mixer_parameters(self, layer: int) -> int:
        del layer  # all alike
        width, heads, rank = self.hidden_size, self.num_attention_heads, self.kv_lora_rank
        queries, latent = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim), rank + self.qk_rope_head_dim
        if self.q_lora_rank is None:
            asking = width * queries
        else:
            asking = self.q_lora_rank * (width + 1 + queries)
        seeing = width * latent + rank + heads * (self.qk_nope_head_dim + self.v_head_dim) * rank
        biases = (self.q_lora_rank or 0) + latent + width if self.attention_bias else 0
        return asking + seeing + heads * self.v_head_dim * width + biases

    def attention_operations(self, positions: float) -> float:
        """Return the operations of all layers that mix tokens, but their matrices, for one that sees so many others.

        They are those of the absorbed form: scores with latents and turned keys, and sums of latents.
        """
        width = 2 * self.kv_lora_rank + self.qk_rope_head_dim
        return 2.0 * self.num_hidden_layers * self.num_attention_heads * width * positions

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        kinds: Any = fields.get("mlp_layer_types")
        if isinstance(kinds, list):
            fields["mlp_layer_types"] = tuple(cast("list[Any]", kinds))
        elif kinds is None:
            fields["mlp_layer_types"] = _first_dense(fields)
        super()._fill(fields)

    def _check(self) -> None:
        super()._check()
        for name, found, wanted in (
            ("num_key_value_heads", self.num_key_value_heads, "num_attention_heads"),
            ("head_dim", self.head_dim, "qk_rope_head_dim"),
        ):
            if found != getattr(self, wanted):
                raise CheckpointError(
                    f"config.json: {name} is {found}, expected {getattr(self, wanted)} as {wanted} is: in latent "
                    "attention they are one; download the model again"
                )
        if len(self.mlp_layer_types) != self.num_hidden_layers:
            raise CheckpointError(
                f"config.json: mlp_layer_types has {len(self.mlp_layer_types)} entries, expected num_hidden_layers, "
                f"{self.num_hidden_layers}; download the model again"
            )
        if self.sliding_window is not None:
            raise UnsupportedModelError(
                f"config.json: sliding_window is {self.sliding_window}, latent attention sees all positions here; "
                "choose another model"
            )
        self._check_routing()

    def _check_routing(self) -> None:
        experts, groups, kept = self.n_routed_experts, self.n_group, self.topk_group
        if experts % groups or experts // groups < 2:
            raise CheckpointError(
                f"config.json: n_routed_experts is {experts}, expected a multiple of n_group, {groups}, and two or "
                "more experts a group; download the model again"
            )
        if kept > groups:
            raise CheckpointError(
                f"config.json: topk_group is {kept}, expected at most n_group, {groups}; download the model again"
            )
        most = experts // groups * kept
        if self.num_experts_per_tok > most:
            raise CheckpointError(
                f"config.json: num_experts_per_tok is {self.num_experts_per_tok}, expected at most {most}, the experts "
                "of topk_group groups; download the model again"
            )


def _first_dense(fields: dict[str, Any]) -> tuple[str, ...]:
    """Return the kinds of blocks where the file says how many at the start are dense: by default one."""
    layers, first = fields["num_hidden_layers"], fields.get("first_k_dense_replace", 1)
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        raise CheckpointError(
            f"config.json: first_k_dense_replace is {str(first)[:80]}, expected a whole number of at least 0; correct "
            "the field or download the model again"
        )
    count = layers if isinstance(layers, int) and 0 < layers <= 4096 else 0  # another number is refused later
    return tuple("dense" if layer < first else "sparse" for layer in range(count))
