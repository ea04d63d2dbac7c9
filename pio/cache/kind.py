"""What every kind of cache offers: to the engine blocks of positions, to layers the tensors that they keep."""

from __future__ import annotations

from typing import Protocol

from pio.tensor import Tensor


class Cache(Protocol):
    """What a model's layers keep of the tokens that they have seen.

    Attributes:
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
    """

    block_size: int
    num_blocks: int
    nbytes: int

    def layer(self, index: int, /) -> tuple[Tensor, Tensor]:
        """Return the two tensors that a layer keeps."""
        ...

    def free(self) -> None:
        """Give the memory back."""
        ...
