"""What every kind of cache offers: to the engine blocks of positions, to layers the tensors that they keep."""

from __future__ import annotations

from typing import Any, Protocol


class Cache(Protocol):
    """What a model's layers keep of the tokens that they have seen.

    Attributes:
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
        position_bytes: Bytes of a position in one layer that attends.
        state_bytes: Bytes of the states of a sequence in all layers that do not.
    """

    block_size: int
    num_blocks: int
    nbytes: int
    position_bytes: float
    state_bytes: int

    def layer(self, index: int, /) -> Any:  # the mixer of that layer knows of which kind
        """Return what a layer keeps: keys and values, latents, or states."""
        ...

    def free(self) -> None:
        """Give the memory back."""
        ...
