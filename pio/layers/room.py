"""Memory for what a block computes in between: made once for the largest batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Final, Generic, TypeVar

from pio.device import Device
from pio.dtypes import DType, float32
from pio.memory.allocation import ALIGNMENT
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor

T = TypeVar("T")
# Numbers of tokens whose views are kept. A step has two, of its tokens and of its outputs, and needs them only while it
# is recorded; where kernels are not compiled every step does.
KEPT: Final = 8


def make_room(
    shapes: Mapping[str, tuple[int, ...]],
    what: str,
    budget: MemoryBudget | None = None,
    *,
    kinds: Mapping[str, DType] | None = None,
    device: Device | None = None,
) -> dict[str, Tensor]:
    """Return tensors by name, in one allocation.

    Args:
        shapes: Of each tensor.
        what: What they are for; an error names it, and the option that makes it smaller.
        budget: Counts the memory.
        kinds: Element types of those that are not float32.
        device: Where they lie.

    Raises:
        OutOfMemoryError: The budget or the machine cannot give that much.
    """
    types = {name: (kinds or {}).get(name, float32) for name in shapes}
    nbytes = sum(-(-types[name].itemsize * prod(shape) // ALIGNMENT) * ALIGNMENT for name, shape in shapes.items())
    arena = Arena(nbytes, budget=budget, what=what, device=device)
    return {name: arena.take(shape, types[name]) for name, shape in shapes.items()}


class Views(Generic[T]):
    """What a block works on for a number of tokens: views of one room, made when they are asked for.

    Those of the last few numbers are kept: layers of one step share theirs, and steps of ever other sizes leave
    nothing behind.

    Args:
        make: Makes the views for that many tokens.
    """

    __slots__ = ("_kept", "_make")

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._kept: dict[int, T] = {}

    def first(self, tokens: int) -> T:
        """Return the views for the first ``tokens`` tokens of the room."""
        found = self._kept.pop(tokens, None)
        if found is None:
            found = self._make(tokens)
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
        self._kept[tokens] = found  # the last used is the last to go
        return found
