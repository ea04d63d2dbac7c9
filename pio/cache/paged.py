"""Positions of all sequences in a pool of blocks that is made once: keys and values, or latents."""

from __future__ import annotations

from math import prod
from typing import Any

from pio.cache.format import CacheFormat
from pio.cache.snapshot import Snapshot
from pio.device import Device
from pio.dtypes import DType
from pio.errors import CapacityError, ConfigError, PioError
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.ops.attention import BLOCK_SIZE
from pio.ops.pages import Pages
from pio.tensor import Tensor, row_major


class PagedCache:
    """One pool of blocks a layer; every layer uses the same block numbers, so a sequence has one block table.

    The memory is reserved at once and given by the system as blocks are first written.

    Attributes:
        format: How positions are stored.
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
        block_bytes: Bytes of a block in all layers.
        state_bytes: Zero: all that is kept are positions.
        state_slots: Zero.
    """

    def __init__(
        self,
        layers: int,
        tokens: int,
        stored_as: CacheFormat,
        *,
        budget: MemoryBudget | None = None,
        device: Device | None = None,
        what: str | None = None,
    ) -> None:
        """Reserve a cache.

        Args:
            layers: Layers that attend.
            tokens: Positions of all sequences together, rounded up to whole blocks.
            stored_as: How a layer stores them: ``CacheFormat.keys_and_values`` or ``CacheFormat.latents``.
            budget: Counts the memory and refuses what exceeds its limit.
            device: Where it lies.
            what: What to call it in errors; by default by its tokens.

        Raises:
            OutOfMemoryError: The budget or the machine cannot give that much.
        """
        self.format = stored_as
        self.block_size = BLOCK_SIZE
        self.num_blocks = max(1, -(-tokens // BLOCK_SIZE))
        self.block_bytes = layers * stored_as.block_bytes
        self.state_bytes = self.state_slots = 0
        dtype, shapes = stored_as.stored, [(self.num_blocks, *shape) for shape in stored_as.shapes]
        sizes = [-(-prod(shape) * dtype.itemsize // 64) * 64 for shape in shapes]  # each begins a line of the processor
        self.nbytes = layers * sum(sizes)
        what = what or f"a cache of {self.num_blocks * BLOCK_SIZE} tokens (fewer with cache_tokens or context_length)"
        self._storage = storage = Storage.allocate(self.nbytes, budget=budget, what=what, device=device)
        self._layers: list[tuple[Pages, ...]] | None = []
        at = storage.address
        for _ in range(layers):
            pools: list[Pages] = []
            for shape, size in zip(shapes, sizes, strict=True):
                pools.append(Pages(storage, at, dtype, shape, row_major(shape), stored_as.dtype.name))
                at += size
            self._layers.append(tuple(pools))

    @property
    def pools(self) -> list[tuple[Pages, ...]]:
        """The tensors of each layer, blocks first.

        Raises:
            PioError: The cache was freed.
        """
        if self._layers is None:
            raise PioError("this cache was freed; make another with model.new_cache")
        return self._layers

    def layer(self, index: int) -> Any:  # the mixer of that layer knows of which kind
        """Return what a layer keeps: its keys and its values, or its latents alone, each ``Pages``.

        Raises:
            PioError: The cache was freed.
        """
        first, *others = self.pools[index]
        return (first, *others) if others else first

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block in all layers.

        Raises:
            CapacityError: There is no such block.
            PioError: The cache was freed.
        """
        for block in (source, target):
            if not 0 <= block < self.num_blocks:
                raise CapacityError(f"block {block} does not exist: this cache has {self.num_blocks}")
        for layer in self.pools:
            for pool in layer:
                pool[target].copy_(pool[source])

    def block_memory(self) -> list[Tensor]:
        """Return the tensors of all layers.

        Raises:
            PioError: The cache was freed.
        """
        return [pool for layer in self.pools for pool in layer]

    def copy_states(self, source: int, target: int) -> None:
        """Do nothing: blocks are all that is kept."""

    def snapshot(self, slot: int, length: int) -> Snapshot:
        """Return that there is nothing to copy: blocks are all that is kept."""
        return Snapshot(length)

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """Refuse states of another model; there are none to put back, for blocks are all that is kept.

        Raises:
            ConfigError: The snapshot has states.
        """
        if snapshot.layers:
            raise ConfigError(
                f"a snapshot of {snapshot.layers} layers with states does not fit this cache, which has none; restore "
                "it into the model that it was taken of"
            )

    def truncate(self, slot: int, length: int) -> None:
        """Do nothing: what blocks hold of later positions is overwritten before it is read."""

    def free(self) -> None:
        """Give the memory back; neither the cache nor steps recorded with it can be used any more."""
        self._storage.free()
        self._layers = None


class PagedKVCache(PagedCache):
    """A cache of keys and values, by the sizes of their heads: the name that plugins of other packages know."""

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
        """Reserve a cache as ``PagedCache`` does, in the format ``CacheFormat.keys_and_values`` of these sizes."""
        stored_as = CacheFormat.keys_and_values(dtype, kv_heads, head_dim)
        super().__init__(layers, tokens, stored_as, budget=budget, device=device)
