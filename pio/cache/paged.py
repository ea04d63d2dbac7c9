"""Keys and values of all sequences in a pool of blocks that is made once."""

from __future__ import annotations

from math import prod

from pio.device import Device
from pio.dtypes import DType
from pio.errors import PioError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.ops.attention import BLOCK_SIZE, cache_layout
from pio.tensor import Tensor, row_major


class PagedKVCache:
    """One pool of blocks a layer; every layer uses the same block numbers, so a sequence has one block table.

    The memory is reserved at once and given by the system as blocks are first written.

    Attributes:
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
        position_bytes: Bytes of a position in one layer.
        state_bytes: Zero: all that is kept are positions.
    """

    def __init__(
        self,
        layers: int,
        tokens: int,
        kv_heads: int,
        head_dim: int,
        dtype: DType,
        *,
        budget: MemoryBudget | None = None,
        device: Device | None = None,
    ) -> None:
        """Reserve a cache.

        Args:
            layers: Layers that attend.
            tokens: Positions of all sequences together, rounded up to whole blocks.
            kv_heads: Key and value heads.
            head_dim: Width of a head.
            dtype: float32, float16, bfloat16 or int8.
            budget: Counts the memory and refuses what exceeds its limit.
            device: Where it lies.

        Raises:
            OutOfMemoryError: The budget or the machine cannot give that much.
        """
        self.block_size = BLOCK_SIZE
        self.num_blocks = max(1, -(-tokens // BLOCK_SIZE))
        stored, *shapes = cache_layout(dtype, self.num_blocks, kv_heads, head_dim)
        sizes = [-(-prod(shape) * stored.itemsize // 64) * 64 for shape in shapes]
        self.nbytes = layers * sum(sizes)
        self.position_bytes = sum(sizes) / (self.num_blocks * BLOCK_SIZE)
        self.state_bytes = 0
        what = f"a cache of {self.num_blocks * BLOCK_SIZE} tokens (fewer with cache_tokens or context_length)"
        storage = Storage.allocate(self.nbytes, budget=budget, what=what, device=device)
        self._pools: list[tuple[Tensor, Tensor]] | None = []
        at = storage.address
        for _ in range(layers):
            made: list[Tensor] = []
            for shape, size in zip(shapes, sizes, strict=True):
                made.append(Tensor(storage, at, stored, shape, row_major(shape)))
                at += size
            self._pools.append((made[0], made[1]))

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a layer.

        Raises:
            PioError: The cache was freed.
        """
        if self._pools is None:
            raise PioError("this cache was freed; make another with model.new_cache")
        return self._pools[index]

    def free(self) -> None:
        """Give the memory back; the cache cannot be used any more."""
        self._pools = None
