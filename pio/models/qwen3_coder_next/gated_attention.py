"""Attention whose output passes a gate that comes with each query."""

from __future__ import annotations

from functools import partial

from pio import ops
from pio.cache.batch import Batch
from pio.cache.kind import Cache
from pio.device import Device
from pio.layers.linear import Linear, together
from pio.layers.norm import RMSNorm
from pio.layers.room import Views, make_room
from pio.layers.source import Source
from pio.layers.workspace import Activations
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor


class QueryActivations:
    """Memory for queries and their gates, shared by all layers.

    Args:
        tokens: Most tokens of a batch.
        heads: Query heads.
        head_dim: Width of a head.
        device: Where it lies.
        budget: Counts the memory.
    """

    def __init__(
        self, tokens: int, heads: int, head_dim: int, device: Device, budget: MemoryBudget | None = None
    ) -> None:
        shapes = {"projected": (tokens, 2 * heads * head_dim)}
        what = "queries and their gates (fewer with prefill_chunk)"
        self._full = make_room(shapes, what, budget, device=device)["projected"]
        self.nbytes = self._full.nbytes
        self._views = Views(partial(_query_views, self._full, heads, head_dim))

    def first(self, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the projection writes, and queries and gates in it, for that many tokens."""
        return self._views.first(tokens)


def _query_views(full: Tensor, heads: int, dim: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    rows = full[:tokens]  # (T, heads * 2 * head_dim)
    both = rows.reshape(tokens * heads, 2 * dim)
    return rows, both[:, :dim], both[:, dim:]  # (T * heads, head_dim)


class GatedAttention:
    """Grouped-query attention with norms on heads of q and k, rotary on a part of them, and a gated output.

    Gated attention: Qiu et al. 2025, arXiv:2505.06708.

    Args:
        source: Weights of the block.
        layer: Which layer of the cache is its own.
        memory: For queries and gates.
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads; heads is a multiple.
        head_dim: Width of a head.
        eps: Of the norms.
        bias: Whether the four projections have biases.
    """

    def __init__(
        self,
        source: Source,
        layer: int,
        memory: QueryActivations,
        *,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        eps: float,
        bias: bool = False,
    ) -> None:
        self.q_proj = Linear(source / "q_proj", 2 * heads * head_dim, hidden, bias=bias)
        self.k_proj = Linear(source / "k_proj", kv_heads * head_dim, hidden, bias=bias)
        self.v_proj = Linear(source / "v_proj", kv_heads * head_dim, hidden, bias=bias)
        self.o_proj = Linear(source / "o_proj", hidden, heads * head_dim, bias=bias)
        self.q_norm = RMSNorm(source / "q_norm", head_dim, eps, zero_centred=True)
        self.k_norm = RMSNorm(source / "k_norm", head_dim, eps, zero_centred=True)
        self.layer = layer
        self._memory = memory
        self._dim = head_dim

    def __call__(self, x: Tensor, residual: Tensor, a: Activations, batch: Batch, cache: Cache) -> None:
        """Attend and add the gated output to the residual stream; the cache gains the batch's keys and values.

        Shapes: x, residual float32 (T, hidden).
        """
        projected, queries, gates = self._memory.first(x.shape[0])
        together(x, (self.q_proj, self.k_proj, self.v_proj), (projected, a.k_rows, a.v_rows))
        self.q_norm(queries, a.q.reshape(-1, self._dim))  # (T * heads, head_dim)
        ops.rope(a.q, a.cos, a.sin)  # (T, heads, head_dim)
        ops.rope(self.k_norm(a.k, a.k), a.cos, a.sin)  # (T, kv_heads, head_dim)
        keys, values = cache.layer(self.layer)
        ops.write_cache(keys, values, a.k, a.v, batch, a.scratch)
        ops.paged_attention(a.q, keys, values, batch, a.scratch, out=a.attended)
        attended = a.attended.reshape(-1, self._dim)  # (T * heads, head_dim)
        ops.sigmoid_gate(attended, gates, out=attended)
        self.o_proj(a.attended_rows, residual, add=True)
