"""Latents and shared keys of all sequences in a pool of blocks that is made once."""

from __future__ import annotations

from math import prod

from pio.device import Device
from pio.dtypes import DType
from pio.errors import PioError, TensorError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.ops._check import FLOATS
from pio.ops.attention import BLOCK_SIZE
from pio.ops.latent_attention import latent_layout
from pio.tensor import Tensor, row_major


class PagedLatentCache:
    """One pool of blocks a layer, whatever the number of heads: a latent and a rotated key for each position.

    Every layer uses the same block numbers, so a sequence has one block table. The memory is reserved at once and given
    by the system as blocks are first written.

    Attributes:
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all: of floats layers * num_blocks * block_size * (rank + rope_dim) * the element's, where rank
            is rounded up to a multiple of 32 and a layer to 64 bytes; see ``latent_layout``.
        position_bytes: Bytes of a position in one layer.
        state_bytes: Zero: all that is kept are positions.
    """

    def __init__(
        self,
        layers: int,
        tokens: int,
        rank: int,
        rope_dim: int,
        dtype: DType,
        *,
        budget: MemoryBudget | None = None,
        device: Device | None = None,
    ) -> None:
        """Reserve a cache.

        Args:
            layers: Layers that attend.
            tokens: Positions of all sequences together, rounded up to whole blocks.
            rank: Width of a latent.
            rope_dim: Width of the key that all heads share.
            dtype: float32, float16, bfloat16 or int8.
            budget: Counts the memory and refuses what exceeds its limit.
            device: Where it lies.

        Raises:
            TensorError: A cache of latents cannot be of that type.
            OutOfMemoryError: The budget or the machine cannot give that much.
        """
        if dtype.name not in (*FLOATS, "int8"):
            raise TensorError(f"a cache of latents cannot be {dtype}, expected one of {', '.join(FLOATS)}, int8")
        self.block_size = BLOCK_SIZE
        self.num_blocks = max(1, -(-tokens // BLOCK_SIZE))
        stored, shape = latent_layout(dtype, self.num_blocks, rank, rope_dim)
        size = -(-prod(shape) * stored.itemsize // 64) * 64
        self.nbytes = layers * size
        self.position_bytes = size / (self.num_blocks * BLOCK_SIZE)
        self.state_bytes = 0
        what = f"a cache of {self.num_blocks * BLOCK_SIZE} tokens (fewer with cache_tokens or context_length)"
        storage = Storage.allocate(self.nbytes, budget=budget, what=what, device=device)
        strides = row_major(shape)
        self._pools: list[Tensor] | None = [
            Tensor(storage, storage.address + i * size, stored, shape, strides) for i in range(layers)
        ]

    def layer(self, index: int) -> Tensor:
        """Return the latents and keys of a layer, as ``latent_layout`` says.

        Raises:
            PioError: The cache was freed.
        """
        if self._pools is None:
            raise PioError("this cache was freed; make another with model.new_cache")
        return self._pools[index]

    def free(self) -> None:
        """Give the memory back; the cache cannot be used any more."""
        self._pools = None
