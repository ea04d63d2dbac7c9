"""A cache of latents, by their sizes: the name that plugins of other packages know."""

from __future__ import annotations

from typing import Unpack

from pio.cache.format import CacheFormat
from pio.cache.paged import Memory, PagedCache
from pio.dtypes import DType


class PagedLatentCache(PagedCache):
    """A latent and a rotated key for each position, whatever the number of heads."""

    def __init__(
        self, layers: int, tokens: int, rank: int, rope_dim: int, dtype: DType, **memory: Unpack[Memory]
    ) -> None:
        """Reserve a cache as ``PagedCache`` does, in the format ``CacheFormat.latents`` of these sizes."""
        super().__init__(layers, tokens, CacheFormat.latents(dtype, rank, rope_dim), **memory)
