"""Attention whose keys and values are made of one latent a position, which is all that the cache keeps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from pio import ops
from pio.cache.batch import Batch
from pio.cache.protocol import Cache
from pio.layers.attention import begin_attention
from pio.layers.linear import Linear, together
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Recipe, Source
from pio.ops.latent_attention import latent_scratch_shape
from pio.ops.quantized import PackedWeight
from pio.tensor import Tensor

HeadMatrices: TypeAlias = "Tensor | PackedWeight"


@dataclass(frozen=True, slots=True)
class LatentSizes:
    """Widths of latent attention.

    Attributes:
        heads: How many heads there are.
        query_rank: Width of the latent that queries are made of; None makes them of the residual stream.
        rank: Width of the latent that keys and values are made of.
        key: Width of a head's key without the part that turns.
        rope: Width of the part that turns, which all heads share.
        value: Width of a head's value.
    """

    heads: int
    query_rank: int | None
    rank: int
    key: int
    rope: int
    value: int


class LatentViews:
    """What a batch of T tokens works on.

    Attributes:
        q_latent: Queries' latent, (T, query_rank).
        q: Queries, (T, heads * (key + rope)).
        q_key: Their part that does not turn, (T, heads, key).
        q_rope: Their part that turns, (T, heads, rope).
        made: Latent and key as they are made, (T, rank + rope).
        latent: (T, rank).
        key: (T, rope).
        key_head: The same as one head, (T, 1, rope).
        asked: Queries for latents, (T, heads, rank).
        attended: Sums of latents, (T, heads, rank).
        values: (T, heads, value).
        rows: The same as rows, (T, heads * value).
        scratch: Of attention.
    """

    __slots__ = (
        "asked",
        "attended",
        "key",
        "key_head",
        "latent",
        "made",
        "q",
        "q_key",
        "q_latent",
        "q_rope",
        "rows",
        "scratch",
        "values",
    )

    def __init__(self, full: dict[str, Tensor], sizes: LatentSizes) -> None:
        s, tokens = sizes, full["q"].shape[0]
        self.q_latent, self.q, self.made = (full[name] for name in ("q_latent", "q", "made"))
        self.asked, self.attended, self.values = (full[name] for name in ("asked", "attended", "values"))
        self.scratch = full["scratch"]
        heads = self.q.reshape(tokens, s.heads, s.key + s.rope)
        self.q_key, self.q_rope = heads[:, :, : s.key], heads[:, :, s.key :]
        self.latent, self.key = self.made[:, : s.rank], self.made[:, s.rank :]
        self.key_head = self.made.reshape(tokens, 1, s.rank + s.rope)[:, :, s.rank :]
        self.rows = self.values.reshape(tokens, s.heads * s.value)


class MultiHeadLatentAttention:
    """Attention over latents in absorbed form: no head's keys or values are ever made.

    DeepSeek-V2, arXiv:2405.04434. A head's key is ``A c`` beside a turned part that all heads share, its value ``B c``,
    of the position's latent c. As ``q . A c = (A^T q) . c``, queries are multiplied by ``A^T``, attention sums latents,
    and ``B`` makes a head's output of the sum.

    Args:
        source: Weights of the block.
        layer: Which layer of the cache is its own.
        sizes: Of attention.
        rotary: Turns queries and keys.
        hidden: Width of the residual stream.
        eps: Of the norms.
        scale: Factor of the scores.
        interleaved: Whether rotary embedding turns the pairs (2 i, 2 i + 1) rather than (i, i + half).
        bias: Whether the projections to latents and the output have biases.
    """

    def __init__(
        self,
        source: Source,
        layer: int,
        sizes: LatentSizes,
        rotary: RotaryEmbedding,
        *,
        hidden: int,
        eps: float,
        scale: float,
        interleaved: bool,
        bias: bool = False,
    ) -> None:
        s, queries = sizes, sizes.heads * (sizes.key + sizes.rope)
        if s.query_rank is None:
            self.q_proj = Linear(source / "q_proj", queries, hidden)
            self.q_norm = self.q_b_proj = None
        else:
            self.q_proj = Linear(source / "q_a_proj", s.query_rank, hidden, bias=bias)
            self.q_norm = RMSNorm(source / "q_a_layernorm", s.query_rank, eps)
            self.q_b_proj = Linear(source / "q_b_proj", queries, s.query_rank)
        self.kv_proj = Linear(source / "kv_a_proj_with_mqa", s.rank + s.rope, hidden, bias=bias)
        self.kv_norm = RMSNorm(source / "kv_a_layernorm", s.rank, eps)
        self.o_proj = Linear(source / "o_proj", hidden, s.heads * s.value, bias=bias)
        self.to_latent: HeadMatrices  # queries are multiplied by it to ask for latents
        self.to_value: HeadMatrices  # makes values of latents
        apart = Recipe(
            (s.heads * (s.key + s.value), s.rank),
            partial(ops.absorbed_weights, heads=s.heads, key_dim=s.key, value_dim=s.value),
            new=[(s.heads, s.rank, s.key)],
            views=[(s.heads, s.value, s.rank)],
        )
        self.to_latent, self.to_value = source.remake_heads("kv_b_proj.weight", apart, like=self.o_proj.weight)
        self.layer = layer
        self.scale = scale
        self.interleaved = interleaved
        self.rotary = rotary
        shapes = {
            "q_latent": (s.query_rank or 0,),
            "q": (queries,),
            "made": (s.rank + s.rope,),
            "asked": (s.heads, s.rank),
            "attended": (s.heads, s.rank),
            "values": (s.heads, s.value),
        }
        fixed = {"scratch": latent_scratch_shape(s.rank, s.rope, source.runs_on)}
        view = partial(LatentViews, sizes=s)
        self._rooms = source.workspace.rooms("latent attention", shapes, view, fixed=fixed, begin=begin_attention)

    def __call__(self, x: Tensor, residual: Tensor, batch: Batch, cache: Cache) -> None:
        """Attend and add the output to the residual stream; the cache gains the batch's latents and keys.

        Shapes: x, residual float32 (T, hidden).
        """
        tokens, latents = x.shape[0], cache.layer(self.layer)
        m, (cos, sin) = self._rooms(tokens), self.rotary.tables(tokens)
        if self.q_norm is None or self.q_b_proj is None:
            together(x, (self.q_proj, self.kv_proj), (m.q, m.made))
        else:
            together(x, (self.q_proj, self.kv_proj), (m.q_latent, m.made))
            self.q_b_proj(self.q_norm(m.q_latent, m.q_latent), m.q)
        self.kv_norm(m.latent, m.latent)
        ops.qk_norm_rope(m.q_rope, m.key_head, cos, sin, interleaved=self.interleaved)
        ops.write_latent_cache(latents, m.latent, m.key, batch)
        self._each_head(m.q_key, self.to_latent, m.asked)  # (T, heads, rank)
        ops.latent_attention(m.asked, m.q_rope, latents, batch, m.scratch, out=m.attended, scale=self.scale)
        self._each_head(m.attended, self.to_value, m.values)  # (T, heads, value)
        self.o_proj(m.rows, residual, add=True)

    def _each_head(self, x: Tensor, weight: HeadMatrices, out: Tensor) -> None:
        scratch = self.o_proj.workspace.inputs if isinstance(weight, PackedWeight) else None
        ops.head_linear(x, weight, out=out, scratch=scratch)
