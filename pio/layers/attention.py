"""Self-attention with grouped key and value heads over a paged cache."""

from __future__ import annotations

from pio import ops
from pio.cache.batch import Batch
from pio.cache.protocol import Cache
from pio.layers.linear import Linear, together
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.layers.workspace import Rooms
from pio.ops.attention import attention_scratch_shape, begin_scratch
from pio.tensor import Tensor


class HeadViews:
    """What attention over T tokens computes in.

    Attributes:
        q: Queries, (T, heads, head_dim).
        k: Keys, (T, kv_heads, head_dim).
        v: Values, (T, kv_heads, head_dim).
        attended: Outputs of attention, (T, heads, head_dim).
        scratch: Of attention, as ``attention_scratch`` makes it.

    ``q_rows``, ``k_rows``, ``v_rows`` and ``attended_rows`` are the same memory as (T, heads * head_dim).
    """

    __slots__ = ("attended", "attended_rows", "k", "k_rows", "q", "q_rows", "scratch", "v", "v_rows")

    def __init__(self, made: dict[str, Tensor]) -> None:
        self.q, self.k, self.v, self.attended = (made[name] for name in ("q", "k", "v", "attended"))
        self.q_rows, self.k_rows, self.v_rows, self.attended_rows = (
            x.reshape(x.shape[0], x.shape[1] * x.shape[2]) for x in (self.q, self.k, self.v, self.attended)
        )
        self.scratch = made["scratch"]


def attention_rooms(source: Source, heads: int, kv_heads: int, head_dim: int) -> Rooms[HeadViews]:
    """Ask for what attention with that many heads computes in."""
    query, key = (heads, head_dim), (kv_heads, head_dim)
    return source.workspace.rooms(
        "attention",
        {"q": query, "k": key, "v": key, "attended": query},
        HeadViews,
        fixed={"scratch": attention_scratch_shape(head_dim, source.runs_on)},
        begin=begin_attention,
    )


def begin_attention(made: dict[str, Tensor]) -> None:
    """Make the scratch that rooms of attention have ready for its first launch."""
    begin_scratch(made["scratch"])


def head_norms(source: Source, head_dim: int) -> tuple[Tensor, Tensor]:
    """Take the weights of the norms of queries and of keys."""
    return (source / "q_norm").take("weight", head_dim), (source / "k_norm").take("weight", head_dim)


class GroupedQueryAttention:
    """Attention whose query heads share key and value heads, mostly with a norm on each head of q and k.

    Grouped queries: Ainslie et al. 2023, arXiv:2305.13245. Norms of q and k: Qwen3 technical report, arXiv:2505.09388.

    Args:
        source: Weights of the block.
        layer: Which layer of the cache is its own.
        rotary: Turns queries and keys.
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads; heads is a multiple.
        head_dim: Width of a head.
        eps: Of the norms.
        bias: Whether the four projections have biases.
        qk_norm: Whether there are those norms; Llama, for one, has none.
        window: How many positions up to its own a token sees; None is all.
    """

    def __init__(
        self,
        source: Source,
        layer: int,
        rotary: RotaryEmbedding,
        *,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        eps: float,
        bias: bool = False,
        qk_norm: bool = True,
        window: int | None = None,
    ) -> None:
        self.q_proj = Linear(source / "q_proj", heads * head_dim, hidden, bias=bias)
        self.k_proj = Linear(source / "k_proj", kv_heads * head_dim, hidden, bias=bias)
        self.v_proj = Linear(source / "v_proj", kv_heads * head_dim, hidden, bias=bias)
        self.o_proj = Linear(source / "o_proj", hidden, heads * head_dim, bias=bias)
        self.norms = head_norms(source, head_dim) if qk_norm else None
        self.eps = eps
        self.rotary = rotary
        self.layer = layer
        self.window = window
        self._rooms = attention_rooms(source, heads, kv_heads, head_dim)

    def __call__(self, x: Tensor, residual: Tensor, batch: Batch, cache: Cache) -> None:
        """Attend and add the output to the residual stream; the cache gains the batch's keys and values.

        Shapes: x, residual float32 (T, hidden).
        """
        tokens = x.shape[0]
        a, (cos, sin) = self._rooms(tokens), self.rotary.tables(tokens)
        together(x, (self.q_proj, self.k_proj, self.v_proj), (a.q_rows, a.k_rows, a.v_rows))
        # (T, heads, head_dim) and (T, kv_heads, head_dim)
        ops.qk_norm_rope(a.q, a.k, cos, sin, norms=self.norms, eps=self.eps)
        keys, values = cache.layer(self.layer)
        ops.write_cache(keys, values, a.k, a.v, batch, a.scratch)
        ops.paged_attention(a.q, keys, values, batch, a.scratch, out=a.attended, window=self.window)
        self.o_proj(a.attended_rows, residual, add=True)
