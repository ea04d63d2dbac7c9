"""One layer of a decoder: what mixes tokens, what works on each alone, and how the two stand together."""

from __future__ import annotations

import inspect
from typing import Protocol

from pio.cache.batch import Batch
from pio.cache.protocol import Cache
from pio.errors import ConfigError
from pio.layers.norm import RMSNorm
from pio.layers.placement import Turn
from pio.tensor import Tensor


class Mixer(Protocol):
    """Mixes tokens with each other: attention, or a recurrence."""

    def __call__(self, x: Tensor, residual: Tensor, batch: Batch, cache: Cache, /) -> None:
        """Add the mixer's output for x to the residual stream."""
        ...


class FeedForward(Protocol):
    """Works on each token alone."""

    def __call__(self, x: Tensor, residual: Tensor, /) -> None:
        """Add the block's output for x to the residual stream."""
        ...


class DecoderLayer:
    """``h = x + mixer(norm(x)); h + mlp(norm(h))``.

    Attributes:
        turn: What is called before the first half and behind the second, where the weights share memory with others.
    """

    def __init__(self, input_layernorm: RMSNorm, mixer: Mixer, post_attention_layernorm: RMSNorm, mlp: FeedForward):
        self.input_layernorm = input_layernorm
        self.mixer = mixer
        self.post_attention_layernorm = post_attention_layernorm
        self.mlp = mlp
        self.turn: Turn | None = None
        self._tokens = 0  # of the step

    def check(self) -> None:
        """Look whether the blocks can be called as they will be.

        Raises:
            ConfigError: One takes other arguments, as blocks that were written for an earlier version do.
        """
        for block, arguments in ((self.mixer, "x, residual, batch, cache"), (self.mlp, "x, residual")):
            try:
                inspect.signature(block).bind(*arguments.split())
            except TypeError as error:
                raise ConfigError(
                    f"{type(block).__name__} cannot be called with ({arguments}): {error}; a block asks "
                    "source.workspace.rooms for what it computes in when it is built, see docs/adding-a-model.md"
                ) from error

    def __call__(self, x: Tensor, normed: Tensor, batch: Batch, cache: Cache) -> None:
        """Advance the residual stream x by one layer; ``normed`` is what goes into a block.

        Shapes: x, normed float32 (T, hidden).
        """
        self.mix(x, normed, batch, cache)
        self.feed(x, normed)

    def mix(self, x: Tensor, normed: Tensor, batch: Batch, cache: Cache) -> None:
        """Advance the residual stream by the layer's first half."""
        self._tokens = x.shape[0]
        if self.turn is not None:
            self.turn.enter(self._tokens)
        self.mixer(self.input_layernorm(x, normed), x, batch, cache)

    def feed(self, x: Tensor, normed: Tensor) -> None:
        """Advance rows of the residual stream by the layer's second half."""
        self.mlp(self.post_attention_layernorm(x, normed), x)
        self.leave()

    def leave(self) -> None:
        """Say that the layer's weights are not needed any more in this step; ``feed`` does it where it is called."""
        if self.turn is not None:
            self.turn.leave(self._tokens)
