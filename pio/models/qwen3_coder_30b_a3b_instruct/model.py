"""Qwen3 mixture of experts: grouped-query attention with normed heads, 8 of 128 experts (arXiv:2505.09388)."""

from __future__ import annotations

from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder, FeedForward
from pio.layers.grouped_query_decoder import grouped_query_decoder
from pio.layers.mlp import SwiGLU
from pio.layers.moe import Routing, SparseMoE
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_coder_30b_a3b_instruct.config import Qwen3MoeConfig


def build(config: Qwen3MoeConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""
    c, routing = config, Routing(config.num_experts, config.num_experts_per_tok, renormalise=config.norm_topk_prob)

    def mlp(at: Source, i: int) -> FeedForward:
        if not c.sparse(i):
            return SwiGLU(at, c.hidden_size, c.intermediate_size)
        return SparseMoE(at, routing, hidden=c.hidden_size, inner=c.moe_intermediate_size)

    return grouped_query_decoder(c, source, runtime, budget, feed_forward=mlp)
