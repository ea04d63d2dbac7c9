"""Attention whose output passes a gate that comes with each query."""

from __future__ import annotations

from functools import partial

from pio import ops
from pio.cache.batch import Batch
from pio.cache.protocol import Cache
from pio.layers.attention import attention_rooms, head_norms
from pio.layers.linear import Linear, together
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.tensor import Tensor


def _queries_and_gates(made: dict[str, Tensor], heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the projection writes, (T, heads * 2 * head_dim), and queries and gates in it, (T, heads, head_dim)."""
    rows = made["projected"]
    dim = rows.shape[1] // (2 * heads)
    both = rows.reshape(rows.shape[0], heads, 2 * dim)
    return rows, both[:, :, :dim], both[:, :, dim:]


class GatedAttention:
    """Grouped-query attention with norms on heads of q and k, rotary on a part of them, and a gated output.

    Gated attention: Qiu et al. 2025, arXiv:2505.06708.

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
    ) -> None:
        self.q_proj = Linear(source / "q_proj", 2 * heads * head_dim, hidden, bias=bias)
        self.k_proj = Linear(source / "k_proj", kv_heads * head_dim, hidden, bias=bias)
        self.v_proj = Linear(source / "v_proj", kv_heads * head_dim, hidden, bias=bias)
        self.o_proj = Linear(source / "o_proj", hidden, heads * head_dim, bias=bias)
        self.norms = head_norms(source, head_dim)  # zero-centred
        self.eps = eps
        self.layer = layer
        self.rotary = rotary
        self._rooms = attention_rooms(source, heads, kv_heads, head_dim)
        shapes, view = {"projected": (2 * heads * head_dim,)}, partial(_queries_and_gates, heads=heads)
        self._projected = source.workspace.rooms("queries and their gates", shapes, view)

    def __call__(self, x: Tensor, residual: Tensor, batch: Batch, cache: Cache) -> None:
        """Attend and add the gated output to the residual stream; the cache gains the batch's keys and values.

        Shapes: x, residual float32 (T, hidden).
        """
        tokens = x.shape[0]
        a, (cos, sin) = self._rooms(tokens), self.rotary.tables(tokens)
        projected, queries, gates = self._projected(tokens)
        together(x, (self.q_proj, self.k_proj, self.v_proj), (projected, a.k_rows, a.v_rows))
        # (T, heads, head_dim) and (T, kv_heads, head_dim)
        ops.qk_norm_rope(queries, a.k, cos, sin, norms=self.norms, eps=self.eps, zero_centred=True, out_q=a.q)
        keys, values = cache.layer(self.layer)
        ops.write_cache(keys, values, a.k, a.v, batch, a.scratch)
        ops.paged_attention(a.q, keys, values, batch, a.scratch, out=a.attended)
        ops.sigmoid_gate(a.attended, gates, out=a.attended)  # (T, heads, head_dim)
        self.o_proj(a.attended_rows, residual, add=True)
