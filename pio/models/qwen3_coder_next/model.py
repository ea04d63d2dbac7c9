"""Qwen3-Next: three recurrent layers to one that attends, and mixtures of experts with a shared one."""

from __future__ import annotations

from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedKVCache
from pio.cache.recurrent import RecurrentStates
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder, DecoderLayer, FeedForward, Mixer
from pio.layers.embedding import Embedding
from pio.layers.head import OutputHead
from pio.layers.mlp import SwiGLU
from pio.layers.moe import ExpertActivations, Routing, SparseMoE
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_coder_next.config import Qwen3NextConfig
from pio.models.qwen3_coder_next.gated_attention import GatedAttention, QueryActivations
from pio.models.qwen3_coder_next.gated_delta_net import DeltaActivations, DeltaShape, GatedDeltaNet
from pio.models.qwen3_coder_next.shared_expert import SharedActivations, SharedMoE


def build(config: Qwen3NextConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""
    c, model, tokens = config, source / "model", runtime.batch_tokens
    source.weights.ignore(lambda name: name.startswith("mtp."), "layers that predict further tokens")
    attends, sparse = ([kind(i) for i in range(c.num_hidden_layers)] for kind in (c.attends, c.sparse))
    embed_tokens = Embedding(model / "embed_tokens", c.vocab_size, c.hidden_size)
    norm = RMSNorm(model / "norm", c.hidden_size, c.rms_norm_eps, zero_centred=True)
    shape = DeltaShape(
        c.linear_num_key_heads,
        c.linear_num_value_heads,
        c.linear_key_head_dim,
        c.linear_value_head_dim,
        c.linear_conv_kernel_dim,
    )
    routing = Routing(c.num_experts, c.num_experts_per_tok, renormalise=c.norm_topk_prob)
    inner, shared_inner = c.moe_intermediate_size, c.shared_expert_intermediate_size
    queries = QueryActivations(tokens, c.num_attention_heads, c.head_dim, source.device, budget)
    deltas = DeltaActivations(tokens if not all(attends) else 0, shape, source.device, budget)
    some = tokens if any(sparse) else 0
    experts = ExpertActivations(some, routing, c.hidden_size, inner, source.device, budget)
    shared = SharedActivations(some, c.hidden_size, source.device, budget)

    def mixer(at: Source, i: int) -> Mixer:
        if not attends[i]:
            net = at / "linear_attn"
            return GatedDeltaNet(net, i, shape, deltas, hidden=c.hidden_size, eps=c.rms_norm_eps)
        return GatedAttention(
            at / "self_attn",
            i,
            queries,
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            eps=c.rms_norm_eps,
            bias=c.attention_bias,
        )

    def mlp(at: Source, i: int) -> FeedForward:
        if not sparse[i]:
            return SwiGLU(at, c.hidden_size, c.intermediate_size)
        routed = SparseMoE(at, routing, experts, hidden=c.hidden_size, inner=inner)
        return SharedMoE(at, routed, shared, hidden=c.hidden_size, inner=shared_inner)

    def layer(i: int) -> DecoderLayer:
        at = model / "layers" / i
        return DecoderLayer(
            RMSNorm(at / "input_layernorm", c.hidden_size, c.rms_norm_eps, zero_centred=True),
            mixer(at, i),
            RMSNorm(at / "post_attention_layernorm", c.hidden_size, c.rms_norm_eps, zero_centred=True),
            mlp(at / "mlp", i),
        )

    def make_cache(positions: int) -> HybridCache:
        dtype = runtime.cache_dtype(norm.weight.dtype, packed=source.held.packed)
        heads, full = c.num_key_value_heads, sum(attends)
        paged = PagedKVCache(full, positions, heads, c.head_dim, dtype, budget=budget, device=source.device)
        others = c.num_hidden_layers - full
        states = RecurrentStates(others, runtime.max_batch_sequences, shape.states, budget=budget, device=source.device)
        return HybridCache(attends, paged, states)

    return Decoder(
        embed_tokens=embed_tokens,
        rotary=RotaryEmbedding(c.rope, c.rotary_dim),
        layers=[layer(i) for i in range(c.num_hidden_layers)],
        norm=norm,
        lm_head=OutputHead(source, embed_tokens, tied=c.tie_word_embeddings),
        workspace=Workspace(
            tokens=tokens,
            hidden=c.hidden_size,
            intermediate=max(shared_inner if s else c.intermediate_size for s in sparse),
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            outputs=runtime.batch_outputs,
            vocab=c.vocab_size,
            device=source.device,
            budget=budget,
            rotary=c.rotary_dim,
        ),
        make_cache=make_cache,
        max_positions=c.max_positions,
        max_batch_sequences=runtime.max_batch_sequences,
        device=source.device,
        rooms=[room.nbytes for room in (queries, deltas, experts, shared)],
    )
