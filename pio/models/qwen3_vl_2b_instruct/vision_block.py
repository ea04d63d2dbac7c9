"""A layer of the tower: attention among the patches of a picture, and a feed-forward block."""

from __future__ import annotations

from pio import ops
from pio.layers.attention import attention_rooms
from pio.layers.linear import Linear, together
from pio.layers.norm import LayerNorm
from pio.layers.quantization import Role
from pio.layers.source import Source
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig
from pio.ops.pages import Pages
from pio.ops.quantized import BLOCK
from pio.ops.slices import Slices
from pio.tensor import Tensor

EPS = 1e-6
TOWER: Role = "tower"


class VisionAttention:
    """Attention in which every patch of a picture sees every other one.

    It comes in two halves: all keys and values of a picture must be there before a patch can see them.
    """

    def __init__(self, source: Source, config: VisionConfig) -> None:
        hidden = config.hidden_size
        # queries, keys and values are told apart in a packed matrix where blocks of outputs end
        role = TOWER if hidden % BLOCK == 0 else None
        qkv = Linear(source / "qkv", 3 * hidden, hidden, bias=True, role=role)
        self.q, self.k, self.v = qkv.split(hidden, hidden, hidden)
        self.proj = Linear(source / "proj", hidden, hidden, bias=True, role=TOWER)
        self._rooms = attention_rooms(source, config.num_heads, config.num_heads, config.head_dim)

    def prepare(
        self, x: Tensor, q: Tensor, turns: tuple[Tensor, Tensor], keys: Pages, values: Pages, batch: Slices
    ) -> None:
        """Compute queries, and put keys and values where all patches will find them.

        Shapes: x float32 (T, hidden); q float32 (T, heads, head_dim), written; turns: cosine and sine, both float32 (T,
        head_dim / 2).
        """
        a, rows = self._rooms(x.shape[0]), q.reshape(x.shape)
        together(x, (self.q, self.k, self.v), (rows, a.k_rows, a.v_rows))
        ops.qk_norm_rope(q, a.k, *turns)
        ops.write_cache(keys, values, a.k, a.v, batch, a.scratch)

    def __call__(self, q: Tensor, residual: Tensor, keys: Pages, values: Pages, batch: Slices) -> None:
        """Attend to all patches of the picture and add the output to the residual stream.

        Shapes: q float32 (T, heads, head_dim); residual float32 (T, hidden).
        """
        a = self._rooms(q.shape[0])
        ops.paged_attention(q, keys, values, batch, a.scratch, out=a.attended, causal=False)
        self.proj(a.attended_rows, residual, add=True)


class VisionMlp:
    """``fc2(gelu(fc1(x)))``."""

    def __init__(self, source: Source, config: VisionConfig) -> None:
        hidden, wide = config.hidden_size, config.intermediate_size
        self.linear_fc1 = Linear(source / "linear_fc1", wide, hidden, bias=True, role=TOWER)
        self.linear_fc2 = Linear(source / "linear_fc2", hidden, wide, bias=True, role=TOWER)
        self._rooms = source.workspace.rooms("feed forward", {"gate": (wide,)}, _wide)

    def __call__(self, x: Tensor, residual: Tensor) -> None:
        """Add the block's output to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        wide = self._rooms(x.shape[0])
        self.linear_fc1(x, wide)
        ops.gelu(wide, out=wide)
        self.linear_fc2(wide, residual, add=True)


class VisionBlock:
    """``h = x + attention(norm1(x)); h + mlp(norm2(h))`` (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

    def __init__(self, source: Source, config: VisionConfig) -> None:
        self.norm1 = LayerNorm(source / "norm1", config.hidden_size, EPS)
        self.norm2 = LayerNorm(source / "norm2", config.hidden_size, EPS)
        self.attn = VisionAttention(source / "attn", config)
        self.mlp = VisionMlp(source / "mlp", config)
        self._rooms = source.workspace.rooms("residual stream", {"normed": (config.hidden_size,)}, _normed)

    def prepare(
        self, x: Tensor, q: Tensor, turns: tuple[Tensor, Tensor], keys: Pages, values: Pages, batch: Slices
    ) -> None:
        """Do what comes before any patch can see another; arguments as in ``VisionAttention.prepare``."""
        self.attn.prepare(self.norm1(x, self._rooms(x.shape[0])), q, turns, keys, values, batch)

    def __call__(self, x: Tensor, q: Tensor, keys: Pages, values: Pages, batch: Slices) -> None:
        """Advance the residual stream.

        Shapes: x float32 (T, hidden); q float32 (T, heads, head_dim).
        """
        self.attn(q, x, keys, values, batch)
        self.mlp(self.norm2(x, self._rooms(x.shape[0])), x)


def _wide(made: dict[str, Tensor]) -> Tensor:
    return made["gate"]


def _normed(made: dict[str, Tensor]) -> Tensor:
    return made["normed"]
