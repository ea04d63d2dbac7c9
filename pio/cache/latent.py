"""A cache of latents, by their sizes: the name that plugins of other packages know."""

from __future__ import annotations

from pio.cache.format import CacheFormat
from pio.cache.paged import PagedCache
from pio.device import Device
from pio.dtypes import DType
from pio.memory.budget import MemoryBudget


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
        """Reserve a cache as ``PagedCache`` does, in the format ``CacheFormat.latents`` of these sizes."""
        stored_as = CacheFormat.latents(dtype, rank, rope_dim)
        super().__init__(layers, tokens, stored_as, budget=budget, device=device)
