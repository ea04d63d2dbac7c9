"""What config.json says of mixtures of experts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

from pydantic import Field

from pio.config.decoder import DecoderConfig
from pio.errors import CheckpointError


class ExpertsConfig(DecoderConfig, frozen=True):
    """A decoder some of whose layers have experts, of which a token chooses a few.

    A model's own config class says which layers these are, how many experts there are, and what stands beside them.
    """

    silent_fields: ClassVar[frozenset[str]] = DecoderConfig.silent_fields | {
        "output_router_logits",
        "router_aux_loss_coef",
    }

    num_experts_per_tok: int = Field(gt=0, le=1 << 10)
    """Experts that a token goes to."""

    moe_intermediate_size: int = Field(gt=0, le=1 << 22)
    """Width of an expert."""

    norm_topk_prob: bool
    """Whether the weights of a token's experts sum to 1, before they are scaled."""

    @property
    @abstractmethod
    def experts(self) -> int:
        """Experts of a sparse layer, of which a token chooses."""

    @abstractmethod
    def sparse(self, layer: int) -> bool:
        """Return whether a layer is a mixture of experts."""

    @property
    def shared_width(self) -> int:
        """Width of the experts that all tokens go to; none by default."""
        return 0

    @property
    def router_parameters(self) -> int:
        """Number of weights of a sparse layer that choose experts."""
        return self.experts * self.hidden_size

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self._count_parameters(self.experts)

    @property
    def active_parameters(self) -> int:
        """Number of weights that a token meets."""
        return self._count_parameters(self.num_experts_per_tok)

    @property
    def last_feed_parameters(self) -> int:
        """Number of weights that one token meets in the last layer's feed-forward block."""
        return self._feed_parameters(self.num_hidden_layers - 1, self.num_experts_per_tok)

    def expert_share(self, sequences: int) -> float:
        """Return which part of the experts' weights a step of so many tokens reads, if all experts are as likely."""
        return 1.0 - (1.0 - self.num_experts_per_tok / self.experts) ** sequences

    def _feed_parameters(self, layer: int, experts: int = 0) -> int:
        if not self.sparse(layer):
            return super()._feed_parameters(layer)
        inner = experts * self.moe_intermediate_size + self.shared_width
        return self.router_parameters + 3 * self.hidden_size * inner


class SteppedExpertsConfig(ExpertsConfig, frozen=True):
    """A mixture of experts in every so many layers, but for those that the file names."""

    num_experts: int = Field(gt=0, le=1 << 16)
    """Experts of a sparse layer."""

    decoder_sparse_step: int = Field(gt=0, le=4096)
    """Every how many layers one is sparse."""

    mlp_only_layers: tuple[int, ...] = Field(max_length=4096)
    """Layers that are dense all the same."""

    @property
    def experts(self) -> int:
        """Experts of a sparse layer."""
        return self.num_experts

    def sparse(self, layer: int) -> bool:
        """Return whether a layer is a mixture of experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        dense: Any = fields.get("mlp_only_layers")
        dense = () if dense is None else dense
        fields["mlp_only_layers"] = tuple(cast("list[Any]", dense)) if isinstance(dense, list) else dense
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
