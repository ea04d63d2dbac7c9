"""Experts that the CPU computes for a model on a GPU: rows and choices come here, and what they add goes back."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from pio import ops
from pio.device import default_device
from pio.dtypes import DType, float32, int32
from pio.layers.placement import ExpertsBlock
from pio.layers.source import Source
from pio.memory.layout import Shape, row_major
from pio.memory.storage import Storage
from pio.ops import compilation
from pio.ops.routing import Choices
from pio.tensor import Tensor


class PinnedMemory(Protocol):
    """Memory of this process that the GPU reads and writes by itself."""

    address: int
    nbytes: int


class Link(Protocol):
    """A GPU's stream, as far as rows are sent by it."""

    def pinned(self, nbytes: int, what: str) -> PinnedMemory:
        """Return memory that it reads and writes by itself."""
        ...

    def send(self, target: int, source: int, nbytes: int) -> None:
        """Copy to the GPU from such memory, which stays as it is until somebody has waited for a result."""
        ...

    def copy_out_all(self, pieces: Iterable[tuple[int, int, int]]) -> None:
        """Copy pieces, each a target here, a source and bytes, and wait for them."""
        ...


class Mail:
    """Memory here that a GPU reads and writes by itself, for rows of tokens, their choices, and what is added to them.

    Attributes:
        link: The stream that copies.
    """

    def __init__(self, link: Link, tokens: int, hidden: int, k: int, experts: int) -> None:
        """Make room for so many tokens of that width, each with k of so many experts.

        Raises:
            OutOfMemoryError: The system refuses pinned memory.
        """
        self.link = link
        row = 4 * (2 * hidden + 4 * k)
        self._memory = link.pinned(tokens * row + 4 * (experts + 1), "rows of tokens whose experts the CPU computes")
        self._storage = Storage(self._memory.address, self._memory.nbytes, self._memory, device=default_device())
        self._sizes = hidden, k, experts

    def first(self, tokens: int) -> tuple[Tensor, Tensor, Choices]:
        """Return room for so many tokens: their rows, what is added to them, both (T, hidden), and their choices."""
        hidden, k, experts = self._sizes
        at = self._storage.address

        def take(dtype: DType, *shape: int) -> Tensor:
            nonlocal at
            made = self._tensor(at, dtype, shape)
            at += made.nbytes
            return made

        x, added = take(float32, tokens, hidden), take(float32, tokens, hidden)
        ids, weights = take(int32, tokens, k), take(float32, tokens, k)
        return (
            x,
            added,
            Choices(ids, weights, take(int32, tokens * k), take(int32, tokens, k), take(int32, experts + 1)),
        )

    def _tensor(self, at: int, dtype: DType, shape: Shape) -> Tensor:
        return Tensor(self._storage, at, dtype, shape, row_major(shape))


class HostExperts:
    """A block of experts whose weights lie here, behind a router on a GPU.

    What a token gets depends on nothing but its row and its choices; its last bits are the CPU's, not the GPU's. A step
    that is recorded returns to Python here, and waits for the rows.
    """

    def __init__(self, source: Source, block: ExpertsBlock, mail: Mail) -> None:
        """Put it together.

        Args:
            source: Of the model on the GPU.
            block: The experts, which compute here.
            mail: Shared by layers, for they compute one after the other.
        """
        hidden = mail.first(1)[0].shape[1]
        self._block, self._mail = block, mail
        self._rooms = source.workspace.rooms("what the CPU adds", {"added": (hidden,)}, _added)

    def __call__(self, x: Tensor, choices: Choices, residual: Tensor) -> None:
        """Add the experts' outputs to the residual stream.

        Shapes: x, residual float32 (T, hidden).
        """
        added = self._rooms(x.shape[0])
        here = self._mail.first(x.shape[0])
        if compilation.is_listing():
            self._block(here[0], here[2], here[1])
        ops.host_call(partial(self._compute, x, choices, added, here))
        ops.add(residual, added, out=residual)

    def _compute(self, x: Tensor, choices: Choices, added: Tensor, here: tuple[Tensor, Tensor, Choices]) -> None:
        rows, sums, chosen = here
        pairs = [(rows, x), *((getattr(chosen, name), getattr(choices, name)) for name in CHOICES)]
        link = self._mail.link
        link.copy_out_all([(to.address, there.address, to.nbytes) for to, there in pairs])
        sums.fill_(0)
        self._block(rows, chosen, sums)
        link.send(added.address, sums.address, sums.nbytes)


CHOICES = ("ids", "weights", "order", "places", "starts")


def _added(made: dict[str, Tensor]) -> Tensor:
    return made["added"]
