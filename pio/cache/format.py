"""How caches store positions: the element type, and what a block of a layer looks like in memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pio.dtypes import DType
from pio.ops.attention import BLOCK_SIZE, cache_layout
from pio.ops.latent_attention import latent_layout

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """What a layer keeps of a block of positions.

    Attributes:
        dtype: What positions are rounded to: float32, float16, bfloat16 or int8. Its name is the format of ``Pages``.
        stored: The elements' type in memory: ``dtype``, but for int8 plain bytes, for scales lie among the numbers.
        shapes: Of one block, for each tensor of a layer; a pool of n blocks is (n, *shape).
    """

    dtype: DType
    stored: DType
    shapes: tuple[Shape, ...]

    @classmethod
    def keys_and_values(cls, dtype: DType, kv_heads: int, head_dim: int) -> CacheFormat:
        """Keys and values of heads of one width: two tensors, see ``ops.attention.cache_layout``.

        Raises:
            TensorError: Positions cannot be stored in that type.
        """
        stored, *pools = cache_layout(dtype, 1, kv_heads, head_dim)
        return cls(dtype, stored, tuple(shape[1:] for shape in pools))

    @classmethod
    def latents(cls, dtype: DType, rank: int, rope_dim: int) -> CacheFormat:
        """Latents and the keys that all heads share: one tensor, see ``ops.latent_attention.latent_layout``.

        Raises:
            TensorError: Positions cannot be stored in that type.
        """
        stored, pool = latent_layout(dtype, 1, rank, rope_dim)
        return cls(dtype, stored, (pool[1:],))

    @property
    def block_bytes(self) -> int:
        """Bytes of a block in one layer."""
        return sum(prod(shape) for shape in self.shapes) * self.stored.itemsize

    @property
    def position_bytes(self) -> float:
        """Bytes of a position in one layer: a fraction where a scale serves several."""
        return self.block_bytes / BLOCK_SIZE
