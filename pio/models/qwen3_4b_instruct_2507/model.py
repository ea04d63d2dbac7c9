"""Qwen3 dense decoder: grouped-query attention with normed heads, SwiGLU (technical report, arXiv:2505.09388)."""

from __future__ import annotations

from pio.cache.paged import PagedKVCache
from pio.config.runtime import RuntimeConfig
from pio.layers.attention import GroupedQueryAttention
from pio.layers.decoder import Decoder, DecoderLayer
from pio.layers.embedding import Embedding
from pio.layers.head import OutputHead
from pio.layers.mlp import SwiGLU
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_4b_instruct_2507.config import Qwen3Config


def build(config: Qwen3Config, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
    """Put the model together; the names are those of the checkpoint's tensors."""
    c, model = config, source / "model"
    embed_tokens = Embedding(model / "embed_tokens", c.vocab_size, c.hidden_size)
    norm = RMSNorm(model / "norm", c.hidden_size, c.rms_norm_eps)

    def layer(i: int) -> DecoderLayer:
        at = model / "layers" / i
        attention = GroupedQueryAttention(
            at / "self_attn",
            i,
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            eps=c.rms_norm_eps,
            bias=c.attention_bias,
            window=c.window(i),
        )
        return DecoderLayer(
            RMSNorm(at / "input_layernorm", c.hidden_size, c.rms_norm_eps),
            attention,
            RMSNorm(at / "post_attention_layernorm", c.hidden_size, c.rms_norm_eps),
            SwiGLU(at / "mlp", c.hidden_size, c.intermediate_size),
        )

    def make_cache(tokens: int) -> PagedKVCache:
        dtype = runtime.cache_dtype(norm.weight.dtype, packed=source.held.packed)
        return PagedKVCache(
            c.num_hidden_layers, tokens, c.num_key_value_heads, c.head_dim, dtype, budget=budget, device=source.device
        )

    return Decoder(
        embed_tokens=embed_tokens,
        rotary=RotaryEmbedding(c.rope, c.head_dim),
        layers=[layer(i) for i in range(c.num_hidden_layers)],
        norm=norm,
        lm_head=OutputHead(source, embed_tokens, tied=c.tie_word_embeddings),
        workspace=Workspace(
            tokens=runtime.batch_tokens,
            hidden=c.hidden_size,
            intermediate=c.intermediate_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            outputs=runtime.batch_outputs,
            vocab=c.vocab_size,
            device=source.device,
            budget=budget,
        ),
        make_cache=make_cache,
        max_positions=c.max_positions,
        max_batch_sequences=runtime.max_batch_sequences,
        device=source.device,
    )
