"""GLM-4.7-Flash: latent attention, 4 of 64 experts by sigmoid, and one expert that all tokens go to."""

from __future__ import annotations

from pio.cache.format import CacheFormat
from pio.cache.paged import PagedCache
from pio.config.runtime import RuntimeConfig
from pio.dtypes import DType
from pio.layers.decoder import Decoder, FeedForward
from pio.layers.mlp import SwiGLU
from pio.layers.moe import Routing, SparseMoE
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget
from pio.models.glm_4_7_flash.config import Glm4MoeLiteConfig
from pio.models.glm_4_7_flash.latent_attention import LatentSizes, MultiHeadLatentAttention
from pio.tensor import Tensor

FURTHER_TOKENS = "layers that predict further tokens"
LATENT_EPS = 1e-6  # of the norms of latents, whatever rms_norm_eps is


class SharedAndRouted:
    """What the experts say that a token chose, and the one that all tokens go to."""

    def __init__(self, shared: SwiGLU, routed: SparseMoE) -> None:
        self.shared = shared
        self.routed = routed

    def __call__(self, x: Tensor, residual: Tensor) -> None:
        """Add the outputs of both to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        self.routed(x, residual)
        self.shared(x, residual)


def build(config: Glm4MoeLiteConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""
    c, hidden, rotary = config, config.hidden_size, RotaryEmbedding(source, config.rope, config.qk_rope_head_dim)
    further = tuple(f"model.layers.{c.num_hidden_layers + i}." for i in range(c.num_nextn_predict_layers))
    source.weights.ignore(lambda name: name.startswith(further), FURTHER_TOKENS)
    sizes = LatentSizes(
        heads=c.num_attention_heads,
        query_rank=c.q_lora_rank,
        rank=c.kv_lora_rank,
        key=c.qk_nope_head_dim,
        rope=c.qk_rope_head_dim,
        value=c.v_head_dim,
    )
    routing = Routing(
        c.n_routed_experts,
        c.num_experts_per_tok,
        logistic=True,
        renormalise=c.norm_topk_prob,
        groups=c.n_group,
        kept_groups=c.topk_group,
        scaling=c.routed_scaling_factor,
    )

    def attention(at: Source, i: int) -> MultiHeadLatentAttention:
        return MultiHeadLatentAttention(
            at / "self_attn",
            i,
            sizes,
            rotary,
            hidden=hidden,
            eps=LATENT_EPS,
            scale=c.score_scale,
            interleaved=c.rope_interleave,
            bias=c.attention_bias,
        )

    def feed_forward(at: Source, i: int) -> FeedForward:
        if not c.sparse(i):
            return SwiGLU(at, hidden, c.intermediate_size)
        return SharedAndRouted(
            SwiGLU(at / "shared_experts", hidden, c.shared_width),
            SparseMoE(at, routing, hidden=hidden, inner=c.moe_intermediate_size),
        )

    def make_cache(tokens: int, dtype: DType) -> PagedCache:
        stored_as = CacheFormat.latents(dtype, c.kv_lora_rank, c.qk_rope_head_dim)
        return PagedCache(c.num_hidden_layers, tokens, stored_as, budget=budget, device=source.device)

    return Decoder.assemble(
        c, source, runtime, rotary=rotary, mixer=attention, feed_forward=feed_forward, make_cache=make_cache
    )
