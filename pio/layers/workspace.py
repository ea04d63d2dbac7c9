"""Memory for activations: made once for the largest batch, shared by all layers."""

from __future__ import annotations

from functools import partial

from pio.device import Device
from pio.layers.room import Views, make_room
from pio.memory.budget import MemoryBudget
from pio.ops.attention import attention_scratch_shape
from pio.tensor import Tensor


class Activations:
    """Views for a batch of T tokens; every layer writes the same memory.

    Attributes:
        x: The residual stream, (T, hidden).
        normed: What goes into a block, (T, hidden).
        q: Queries, (T, heads, head_dim).
        k: Keys, (T, kv_heads, head_dim).
        v: Values, (T, kv_heads, head_dim).
        attended: Outputs of attention, (T, heads, head_dim).
        gate: (T, intermediate).
        up: (T, intermediate).
        cos: Rotary table, (T, rotary / 2).
        sin: Rotary table, (T, rotary / 2).
        scratch: Of attention, as ``attention_scratch`` makes it.

    ``q_rows``, ``k_rows``, ``v_rows`` and ``attended_rows`` are the same memory as (T, heads * head_dim).
    """

    __slots__ = (
        "_feeds",
        "attended",
        "attended_rows",
        "cos",
        "gate",
        "k",
        "k_rows",
        "normed",
        "q",
        "q_rows",
        "scratch",
        "sin",
        "up",
        "v",
        "v_rows",
        "x",
    )

    def __init__(self, full: dict[str, Tensor], tokens: int) -> None:
        self.x = full["x"][:tokens]
        self.normed = full["normed"][:tokens]
        self.q = full["q"][:tokens]
        self.k = full["k"][:tokens]
        self.v = full["v"][:tokens]
        self.attended = full["attended"][:tokens]
        self.gate = full["gate"][:tokens]
        self.up = full["up"][:tokens]
        self.cos = full["cos"][:tokens]
        self.sin = full["sin"][:tokens]
        self.scratch = full["scratch"]
        self.q_rows, self.k_rows, self.v_rows, self.attended_rows = (
            x.reshape(tokens, -1) for x in (self.q, self.k, self.v, self.attended)
        )
        self._feeds: dict[int, tuple[Tensor, Tensor]] = {}

    def feed(self, width: int) -> tuple[Tensor, Tensor]:
        """Return gate and up of a block of at most that width, in the same memory.

        Shapes: (T, width).
        """
        found = self._feeds.get(width)
        if found is None:
            tokens = self.gate.shape[0]
            first = [x.reshape(-1)[: tokens * width].reshape(tokens, width) for x in (self.gate, self.up)]
            found = self._feeds[width] = first[0], first[1]
        return found


class Workspace:
    """One allocation for the activations of a decoder.

    Args:
        tokens: Most tokens of a batch.
        hidden: Width of the residual stream.
        intermediate: Width of the feed-forward block.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        outputs: Most rows of logits of a batch.
        vocab: Length of a row of logits.
        device: Where it lies.
        budget: Counts the memory.
        rotary: How many elements of a head turn; all by default.
    """

    def __init__(
        self,
        tokens: int,
        hidden: int,
        intermediate: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        outputs: int,
        vocab: int,
        device: Device,
        budget: MemoryBudget | None = None,
        rotary: int | None = None,
    ) -> None:
        turning = head_dim if rotary is None else rotary
        shapes = {
            "x": (tokens, hidden),
            "normed": (tokens, hidden),
            "q": (tokens, heads, head_dim),
            "k": (tokens, kv_heads, head_dim),
            "v": (tokens, kv_heads, head_dim),
            "attended": (tokens, heads, head_dim),
            "gate": (tokens, intermediate),
            "up": (tokens, intermediate),
            "cos": (tokens, turning // 2),
            "sin": (tokens, turning // 2),
            "rows": (outputs, hidden),
            "logits": (outputs, vocab),
            "scratch": attention_scratch_shape(head_dim, device),
        }
        what = "the activations (fewer with prefill_chunk or max_batch_sequences)"
        self._full = make_room(shapes, what, budget, device=device)
        self._views = Views(partial(Activations, self._full))
        self.nbytes = self._full["x"].storage.nbytes
        self.tokens = tokens
        self.rows = self._full["rows"]  # hidden states that need logits, (outputs, hidden)
        self.logits = self._full["logits"]  # (outputs, vocab)

    def activations(self, tokens: int) -> Activations:
        """Return the views for that many tokens."""
        return self._views.first(tokens)
