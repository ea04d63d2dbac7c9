"""Qwen3-Next: three recurrent layers to one that attends, and mixtures of experts with a shared one."""

from __future__ import annotations

from pio.cache.format import CacheFormat
from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedCache
from pio.cache.recurrent import RecurrentStates
from pio.cache.windows import TOKENS
from pio.config.runtime import RuntimeConfig
from pio.dtypes import DType
from pio.layers.decoder import Decoder, FeedForward, Mixer
from pio.layers.mlp import SwiGLU
from pio.layers.moe import Routing, SparseMoE
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_coder_next.config import Qwen3NextConfig
from pio.models.qwen3_coder_next.gated_attention import GatedAttention
from pio.models.qwen3_coder_next.gated_delta_net import DeltaShape, GatedDeltaNet
from pio.models.qwen3_coder_next.shared_expert import SharedMoE


def build(config: Qwen3NextConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""
    c, hidden, eps = config, config.hidden_size, config.rms_norm_eps
    source.weights.ignore(lambda name: name.startswith("mtp."), "layers that predict further tokens")
    attends = [c.attends(i) for i in range(c.num_hidden_layers)]
    rotary = RotaryEmbedding(source, c.rope, c.rotary_dim)
    shape = DeltaShape(
        c.linear_num_key_heads,
        c.linear_num_value_heads,
        c.linear_key_head_dim,
        c.linear_value_head_dim,
        c.linear_conv_kernel_dim,
    )
    routing = Routing(c.num_experts, c.num_experts_per_tok, renormalise=c.norm_topk_prob)

    def mixer(at: Source, i: int) -> Mixer:
        if not attends[i]:
            return GatedDeltaNet(at / "linear_attn", i, shape, hidden=hidden, eps=eps)
        return GatedAttention(
            at / "self_attn",
            i,
            rotary,
            hidden=hidden,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            eps=eps,
            bias=c.attention_bias,
        )

    def feed_forward(at: Source, i: int) -> FeedForward:
        if not c.sparse(i):
            return SwiGLU(at, hidden, c.intermediate_size)
        routed = SparseMoE(at, routing, hidden=hidden, inner=c.moe_intermediate_size)
        return SharedMoE(at, routed, hidden=hidden, inner=c.shared_expert_intermediate_size)

    def make_cache(positions: int, dtype: DType) -> HybridCache:
        full, device = sum(attends), source.device
        stored_as = CacheFormat.keys_and_values(dtype, c.num_key_value_heads, c.head_dim)
        paged = PagedCache(full, positions, stored_as, budget=budget, device=device)
        others = c.num_hidden_layers - full
        slots = runtime.state_slots(RecurrentStates.bytes_of(others, shape.states), paged.num_blocks)
        drafts = 0 if runtime.speculation == "off" else min(TOKENS, source.workspace.tokens)
        states = RecurrentStates(
            others,
            slots,
            shape.states,
            budget=budget,
            device=device,
            tentative_tokens=drafts,
            key_heads=shape.key_heads,
        )
        return HybridCache(attends, paged, states)

    return Decoder.assemble(
        c,
        source,
        runtime,
        rotary=rotary,
        mixer=mixer,
        feed_forward=feed_forward,
        make_cache=make_cache,
        zero_centred=True,
    )
