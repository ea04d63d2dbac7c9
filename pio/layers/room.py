"""Memory for what a block computes in between: made once for the largest batch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from pio.device import ALIGNMENT, MemoryBudget
from pio.dtypes import DType, float32
from pio.memory.arena import Arena
from pio.tensor import Tensor


def make_room(
    shapes: Mapping[str, tuple[int, ...]],
    what: str,
    budget: MemoryBudget | None = None,
    *,
    kinds: Mapping[str, DType] | None = None,
) -> dict[str, Tensor]:
    """Return tensors by name, in one allocation.

    Args:
        shapes: Of each tensor.
        what: What they are for; an error names it, and the option that makes it smaller.
        budget: Counts the memory.
        kinds: Element types of those that are not float32.

    Raises:
        OutOfMemoryError: The budget or the machine cannot give that much.
    """
    types = {name: (kinds or {}).get(name, float32) for name in shapes}
    nbytes = sum(-(-types[name].itemsize * prod(shape) // ALIGNMENT) * ALIGNMENT for name, shape in shapes.items())
    arena = Arena(nbytes, budget=budget, what=what)
    return {name: arena.take(shape, types[name]) for name, shape in shapes.items()}
