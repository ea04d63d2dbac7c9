"""Qwen3 mixture of experts: grouped-query attention with normed heads, 8 of 128 experts (arXiv:2505.09388)."""

from __future__ import annotations

from pio.cache.paged import PagedKVCache
from pio.config.runtime import RuntimeConfig
from pio.dtypes import DType
from pio.layers.attention import GroupedQueryAttention
from pio.layers.decoder import Decoder, FeedForward
from pio.layers.mlp import SwiGLU
from pio.layers.moe import Routing, SparseMoE
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_coder_30b_a3b_instruct.config import Qwen3MoeConfig


def build(config: Qwen3MoeConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""
    c, rotary = config, RotaryEmbedding(source, config.rope, config.head_dim)
    routing = Routing(c.num_experts, c.num_experts_per_tok, renormalise=c.norm_topk_prob)

    def attention(at: Source, i: int) -> GroupedQueryAttention:
        return GroupedQueryAttention(
            at / "self_attn",
            i,
            rotary,
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            eps=c.rms_norm_eps,
            bias=c.attention_bias,
            window=c.window(i),
        )

    def mlp(at: Source, i: int) -> FeedForward:
        if not c.sparse(i):
            return SwiGLU(at, c.hidden_size, c.intermediate_size)
        return SparseMoE(at, routing, hidden=c.hidden_size, inner=c.moe_intermediate_size)

    def make_cache(tokens: int, dtype: DType) -> PagedKVCache:
        sizes = c.num_hidden_layers, tokens, c.num_key_value_heads, c.head_dim
        return PagedKVCache(*sizes, dtype, budget=budget, device=source.device)

    return Decoder.assemble(c, source, runtime, rotary=rotary, mixer=attention, feed_forward=mlp, make_cache=make_cache)
