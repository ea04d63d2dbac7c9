"""GLM-4.7-Flash: latent attention, 4 of 64 experts by sigmoid, and one expert that all tokens go to."""

from __future__ import annotations

from pio.cache.latent import PagedLatentCache
from pio.config.runtime import RuntimeConfig
from pio.layers.decoder import Decoder, DecoderLayer, FeedForward
from pio.layers.embedding import Embedding
from pio.layers.head import OutputHead
from pio.layers.mlp import SwiGLU
from pio.layers.moe import ExpertActivations, Routing, SparseMoE
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.layers.workspace import Activations, Workspace
from pio.memory.budget import MemoryBudget
from pio.models.glm_4_7_flash.config import Glm4MoeLiteConfig
from pio.models.glm_4_7_flash.latent_attention import LatentActivations, LatentSizes, MultiHeadLatentAttention
from pio.tensor import Tensor

FURTHER_TOKENS = "layers that predict further tokens"
LATENT_EPS = 1e-6  # of the norms of latents, whatever rms_norm_eps is


class SharedAndRouted:
    """What the experts say that a token chose, and the one that all tokens go to."""

    def __init__(self, shared: SwiGLU, routed: SparseMoE) -> None:
        self.shared = shared
        self.routed = routed

    def __call__(self, x: Tensor, residual: Tensor, a: Activations) -> None:
        """Add the outputs of both to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        self.routed(x, residual, a)
        self.shared(x, residual, a)


def build(config: Glm4MoeLiteConfig, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""
    c, model, device = config, source / "model", source.device
    further = tuple(f"model.layers.{c.num_hidden_layers + i}." for i in range(c.num_nextn_predict_layers))
    source.weights.ignore(lambda name: name.startswith(further), FURTHER_TOKENS)
    embed_tokens = Embedding(model / "embed_tokens", c.vocab_size, c.hidden_size)
    norm = RMSNorm(model / "norm", c.hidden_size, c.rms_norm_eps)
    sparse = [c.sparse(i) for i in range(c.num_hidden_layers)]
    widths = [c.shared_width if s else c.intermediate_size for s in sparse]
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
    latents = LatentActivations(runtime.batch_tokens, sizes, device, budget)
    routed_tokens = runtime.batch_tokens if any(sparse) else 0
    experts = ExpertActivations(routed_tokens, routing, c.hidden_size, c.moe_intermediate_size, device, budget)

    def feed(at: Source, i: int) -> FeedForward:
        if not sparse[i]:
            return SwiGLU(at, c.hidden_size, c.intermediate_size)
        return SharedAndRouted(
            SwiGLU(at / "shared_experts", c.hidden_size, c.shared_width),
            SparseMoE(at, routing, experts, hidden=c.hidden_size, inner=c.moe_intermediate_size),
        )

    def layer(i: int) -> DecoderLayer:
        at = model / "layers" / i
        attention = MultiHeadLatentAttention(
            at / "self_attn",
            i,
            sizes,
            latents,
            hidden=c.hidden_size,
            eps=LATENT_EPS,
            scale=c.score_scale,
            interleaved=c.rope_interleave,
            bias=c.attention_bias,
        )
        return DecoderLayer(
            RMSNorm(at / "input_layernorm", c.hidden_size, c.rms_norm_eps),
            attention,
            RMSNorm(at / "post_attention_layernorm", c.hidden_size, c.rms_norm_eps),
            feed(at / "mlp", i),
        )

    def make_cache(tokens: int) -> PagedLatentCache:
        dtype = runtime.cache_dtype(norm.weight.dtype, packed=source.held.packed)
        return PagedLatentCache(
            c.num_hidden_layers, tokens, c.kv_lora_rank, c.qk_rope_head_dim, dtype, budget=budget, device=source.device
        )

    return Decoder(
        embed_tokens=embed_tokens,
        rotary=RotaryEmbedding(c.rope, c.qk_rope_head_dim),
        layers=[layer(i) for i in range(c.num_hidden_layers)],
        norm=norm,
        lm_head=OutputHead(source, embed_tokens, tied=c.tie_word_embeddings),
        workspace=Workspace(
            tokens=runtime.batch_tokens,
            hidden=c.hidden_size,
            intermediate=max(widths),
            heads=0,  # attention has memory of its own
            kv_heads=0,
            head_dim=c.qk_rope_head_dim,
            outputs=runtime.batch_outputs,
            vocab=c.vocab_size,
            device=device,
            budget=budget,
        ),
        make_cache=make_cache,
        max_positions=c.max_positions,
        max_batch_sequences=runtime.max_batch_sequences,
        device=device,
        rooms=[latents.nbytes, experts.nbytes],
    )
