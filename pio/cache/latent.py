"""Latents and shared keys of all sequences, in place of the keys and values that follow from them."""

from __future__ import annotations

from pio.cache.format import CacheFormat
from pio.cache.paged import PagedCache
from pio.device import Device
from pio.dtypes import DType
from pio.memory.budget import MemoryBudget
from pio.ops.pages import Pages


class PagedLatentCache(PagedCache):
    """A latent and a rotated key for each position, whatever the number of heads."""

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
        stored_as = CacheFormat.latents(dtype, rank, rope_dim)
        super().__init__(layers, tokens, stored_as, budget=budget, device=device)

    def layer(self, index: int) -> Pages:
        """Return the latents and keys of a layer, as ``latent_layout`` says.

        Raises:
            PioError: The cache was freed.
        """
        return self.pools[index][0]
