"""A decoder whose layers all attend with grouped queries over pages of keys and values, whatever stands between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pio.cache.format import CacheFormat
from pio.cache.paged import PagedCache
from pio.dtypes import DType
from pio.layers.attention import GroupedQueryAttention
from pio.layers.decoder import Decoder, DecoderOptions, DecoderSizes, FeedForward
from pio.layers.mlp import SwiGLU
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.memory.budget import MemoryBudget


class AttentionSizes(DecoderSizes, Protocol):
    """What such a decoder has to know of a model's config besides (``pio.config.decoder``)."""

    @property
    def rope(self) -> Mapping[str, Any]:
        """Parameters of rotary embedding."""
        ...

    @property
    def num_attention_heads(self) -> int:
        """Query heads."""
        ...

    @property
    def num_key_value_heads(self) -> int:
        """Key and value heads."""
        ...

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        ...

    @property
    def intermediate_size(self) -> int:
        """Width of a dense feed-forward block."""
        ...

    @property
    def attention_bias(self) -> bool:
        """Whether the projections have biases."""
        ...

    def window(self, layer: int, /) -> int | None:
        """Return how many positions up to its own a token of that layer sees; None is all."""
        ...


def grouped_query_decoder(
    config: AttentionSizes,
    source: Source,
    options: DecoderOptions,
    budget: MemoryBudget,
    feed_forward: Callable[[Source, int], FeedForward] | None = None,
    *,
    rotary: RotaryEmbedding | None = None,
    below: str = "model",
    levels: int = 0,
) -> Decoder:
    """Put a model together; the names are those that most checkpoints give their tensors.

    Args:
        config: Sizes of the decoder and its heads.
        source: Weights of the model.
        options: How it is to run.
        budget: Counts the memory of caches.
        feed_forward: Makes the feed-forward block of the layer of that number, from the weights below ``mlp``; by
            default a gated one of the config's ``intermediate_size``.
        rotary: Turns queries and keys; by default whole heads, by the config's parameters.
        below: The prefix of all names but the output head's.
        levels: As in ``Decoder.assemble``.
    """
    c = config
    turns = RotaryEmbedding(source, c.rope, c.head_dim) if rotary is None else rotary

    def attention(at: Source, i: int) -> GroupedQueryAttention:
        return GroupedQueryAttention(
            at / "self_attn",
            i,
            turns,
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            eps=c.rms_norm_eps,
            bias=c.attention_bias,
            window=c.window(i),
        )

    def swiglu(at: Source, i: int) -> SwiGLU:
        return SwiGLU(at, c.hidden_size, c.intermediate_size)

    def make_cache(tokens: int, dtype: DType) -> PagedCache:
        stored_as = CacheFormat.keys_and_values(dtype, c.num_key_value_heads, c.head_dim)
        return PagedCache(c.num_hidden_layers, tokens, stored_as, budget=budget, device=source.device)

    feed = swiglu if feed_forward is None else feed_forward
    return Decoder.assemble(
        c,
        source,
        options,
        rotary=turns,
        mixer=attention,
        feed_forward=feed,
        make_cache=make_cache,
        below=below,
        levels=levels,
    )
