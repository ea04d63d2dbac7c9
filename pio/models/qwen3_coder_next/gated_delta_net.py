"""A recurrent layer: a short convolution, then the gated delta rule over a state of fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from pio import ops
from pio.cache.batch import Batch
from pio.cache.protocol import Cache
from pio.layers.linear import Linear
from pio.layers.source import Recipe, Source
from pio.ops.gated_delta import state_shape
from pio.tensor import Tensor


@dataclass(frozen=True, slots=True)
class DeltaShape:
    """Heads of a recurrent layer.

    Attributes:
        key_heads: Query and key heads.
        heads: Value heads, a multiple.
        dim: Width of a key.
        value_dim: Width of a value.
        width: Tokens that the convolution sees.
    """

    key_heads: int
    heads: int
    dim: int
    value_dim: int
    width: int

    @property
    def keys(self) -> int:
        """Width of all keys together."""
        return self.key_heads * self.dim

    @property
    def values(self) -> int:
        """Width of all values together."""
        return self.heads * self.value_dim

    @property
    def channels(self) -> int:
        """Width of what is convolved: queries, keys and values."""
        return 2 * self.keys + self.values

    @property
    def states(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of what a layer keeps of a sequence: inputs of the convolution, and the recurrence's state."""
        return (self.width - 1, self.channels), state_shape(1, self.heads, self.dim, self.value_dim)[1:]


class DeltaViews:
    """Views for T tokens.

    Attributes:
        projected: What the input projection writes, (T, key_heads * group); of each key head's group its query, its
            key, its values and their gates lie side by side.
        inputs: Queries, keys and values there, as the convolution takes them, each (T, key_heads, n).
        ba: Of both gates' projections, (T, 2 heads).
        b: (T, heads).
        a: (T, heads).
        convolved: (T, channels).
        q: Of the convolved, (T, key_heads, dim).
        k: (T, key_heads, dim).
        v: (T, heads, value_dim).
        z: Gates of the output, in ``projected``, (T, key_heads, values of a key head, value_dim).
        core: What the recurrence gives, (T, heads, value_dim).
        core_rows: The same, (T, heads * value_dim).
        beta: (T, heads).
        decay: (T, heads).
        scratch: (T, key_heads, 2).
    """

    def __init__(self, cut: dict[str, Tensor], s: DeltaShape) -> None:
        tokens = cut["core"].shape[0]
        self.projected, self.ba, self.convolved = (cut[name] for name in ("projected", "ba", "convolved"))
        self.b, self.a = self.ba[:, : s.heads], self.ba[:, s.heads :]
        each = s.values // s.key_heads
        group = self.projected.reshape(tokens, s.key_heads, 2 * s.dim + 2 * each)
        ends = [0, s.dim, 2 * s.dim, 2 * s.dim + each]
        self.inputs = [group[:, :, first:last] for first, last in pairwise(ends)]
        self.z = _groups(group[:, :, 2 * s.dim + each :], s.heads // s.key_heads)
        self.q = _heads(self.convolved[:, : s.keys], s.key_heads)
        self.k = _heads(self.convolved[:, s.keys : 2 * s.keys], s.key_heads)
        self.v = _heads(self.convolved[:, 2 * s.keys :], s.heads)
        self.core, self.core_rows = cut["core"].reshape(tokens, s.heads, s.value_dim), cut["core"]
        self.beta, self.decay, self.scratch = cut["beta"], cut["decay"], cut["scratch"]


class GatedDeltaNet:
    """``S = decay S + k (beta (v - k (decay S)))``, ``out = q S``: a state that forgets, corrects itself and is read.

    Gated delta networks: Yang et al. 2024, arXiv:2412.06464.

    Args:
        source: Weights of the block.
        layer: Which layer of the cache is its own.
        shape: Its heads.
        hidden: Width of the residual stream.
        eps: Of the norm of the output.
    """

    def __init__(self, source: Source, layer: int, shape: DeltaShape, *, hidden: int, eps: float) -> None:
        s = shape
        self.in_proj_qkvz = Linear(source / "in_proj_qkvz", 2 * s.keys + 2 * s.values, hidden)
        # a few rows that decide what is remembered: they stay as stored
        gates = 2 * s.heads, hidden
        (self.in_proj_ba,) = source.remake("in_proj_ba.weight", Recipe(gates, partial(_gates_apart, s=s), [gates]))
        stored, kept = (s.channels, 1, s.width), (s.width, s.channels)
        (self.conv1d,) = source.remake("conv1d.weight", Recipe(stored, _taps_apart, [kept]))
        self.a_log = source.take_float32("A_log", s.heads)
        self.dt_bias = source.take_float32("dt_bias", s.heads)
        self.norm = (source / "norm").take("weight", s.value_dim)
        self.out_proj = Linear(source / "out_proj", hidden, s.values)
        self.layer = layer
        self.eps = eps
        shapes = {
            "projected": (2 * s.keys + 2 * s.values,),
            "ba": (2 * s.heads,),
            "convolved": (s.channels,),
            "core": (s.values,),
            "beta": (s.heads,),
            "decay": (s.heads,),
            "scratch": (s.key_heads, 2),
        }
        self._rooms = source.workspace.rooms("recurrent layers", shapes, partial(DeltaViews, s=s))

    def __call__(self, x: Tensor, residual: Tensor, batch: Batch, cache: Cache) -> None:
        """Let the sequences' states see the tokens, and add what they give to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        m = self._rooms(x.shape[0])
        self.in_proj_qkvz(x, m.projected)
        ops.linear(x, self.in_proj_ba, out=m.ba)
        inputs, state, *kept = cache.layer(self.layer)
        window = kept[0] if kept else None
        ops.causal_conv(m.inputs, self.conv1d, inputs, batch, out=m.convolved, window=window)
        gates = m.b, m.a, self.a_log, self.dt_bias
        given = m.q, m.k, m.v, m.decay, m.beta, state, batch
        ops.gated_delta(*given, gates=gates, out=m.core, scratch=m.scratch, window=window)
        ops.gated_rms_norm(m.core, m.z, self.norm, self.eps, out=m.core)
        self.out_proj(m.core_rows, residual, add=True)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Columns of wider rows as heads, a view: (T, heads * dim) with gaps between rows to (T, heads, dim)."""
    tokens, width = x.shape
    dim = width // heads
    return Tensor(x.storage, x.address, x.dtype, (tokens, heads, dim), (x.strides[0], dim, 1))


def _groups(x: Tensor, each: int) -> Tensor:
    """Heads of which several lie side by side, a view: (T, groups, each * dim) with gaps to (T, groups, each, dim)."""
    tokens, groups, width = x.shape
    dim = width // each
    return Tensor(x.storage, x.address, x.dtype, (tokens, groups, each, dim), (*x.strides[:2], dim, 1))


def _taps_apart(weight: Tensor) -> list[Tensor]:
    """A convolution's weights of all channels for each tap."""
    channels, _, width = weight.shape
    return [weight.reshape(channels, width).T.contiguous()]


def _gates_apart(weight: Tensor, s: DeltaShape) -> list[Tensor]:
    """The rows that make b of all heads, then those that make a; checkpoints keep both of a key head side by side."""
    each = s.heads // s.key_heads
    found = weight.reshape(s.key_heads, 2, each, weight.shape[1])
    out = Tensor.empty(weight.shape, weight.dtype, weight.device)
    out.reshape(2, s.key_heads, each, weight.shape[1]).copy_(found.transpose(1, 0, 2, 3))
    return [out]
