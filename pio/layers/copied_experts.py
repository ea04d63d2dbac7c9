"""Experts that come to a GPU in each step: all of a layer ahead of time, or those few that tokens chose."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from pio import ops
from pio.layers.placement import SizedExpertsBlock
from pio.ops.routing import Choices
from pio.tensor import Tensor

Part = tuple[int, int]  # where it begins in a layer's memory, and its bytes


class Reader(Protocol):
    """A GPU's stream, as far as choices are read by it."""

    def copy_out_all(self, pieces: Iterable[tuple[int, int, int]]) -> None:
        """Copy pieces, each a target here, a source and bytes, and wait for them."""
        ...


def are_few(tokens: int, k: int, experts: int) -> bool:
    """Return whether so many tokens, each with k experts, are sure to need no more than half of all."""
    return 2 * tokens * k <= experts


class CopiedExperts:
    """A block of experts in memory that layers share.

    Where tokens are few the block waits for their choices and has only those experts brought, which is a fraction of
    all; else all have been brought by then. The bits are the same.
    """

    def __init__(
        self,
        block: SizedExpertsBlock,
        begin: int,
        reader: Reader,
        bring: Callable[[Sequence[Part]], None],
    ) -> None:
        """Put it together.

        Args:
            block: The experts, whose weights lie in a buffer.
            begin: Address of the buffer.
            reader: Of the GPU.
            bring: Brings parts of the layer's memory into the buffer.
        """
        _, self._k, self._experts = block.sizes
        self._block, self._reader, self._bring = block, reader, bring
        self._parts = [[(t.address - begin, t.nbytes) for t in block.weights_of(i)] for i in range(self._experts)]

    def __call__(self, x: Tensor, choices: Choices, residual: Tensor) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        if are_few(x.shape[0], self._k, self._experts):
            ops.host_call(partial(self._bring_chosen, choices.starts))
        self._block(x, choices, residual)

    def _bring_chosen(self, starts: Tensor) -> None:
        here = array("i", bytes(4 * (self._experts + 1)))
        self._reader.copy_out_all([(here.buffer_info()[0], starts.address, starts.nbytes)])
        chosen = (i for i in range(self._experts) if here[i] < here[i + 1])
        self._bring([part for i in chosen for part in self._parts[i]])
