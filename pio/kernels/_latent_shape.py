"""What kernels of latent attention read of a layer: one record of the sizes that stay the same from step to step."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels._latent_record import HEAD_LATENT as HEAD_LATENT
from pio.kernels._latent_record import HEAD_ROPE as HEAD_ROPE
from pio.kernels._latent_record import HEADS as HEADS
from pio.kernels._latent_record import RANK as RANK
from pio.kernels._latent_record import ROPE_DIM as ROPE_DIM
from pio.kernels._latent_record import SCALE as SCALE
from pio.kernels._latent_record import SCRATCH as SCRATCH
from pio.kernels._latent_record import TOKEN_LATENT as TOKEN_LATENT
from pio.kernels._latent_record import TOKEN_ROPE as TOKEN_ROPE
from pio.kernels._rows import scale_row
from pio.kernels.simd import put_f32


@kernel
def take_query(row: int, latent: int, rope: int, rank: int, values: int, rope_dim: int, scale: float) -> None:
    """Lay a query out as the cache lays out its rows.

    row = scale * (latent, zeros, rope)

    Shapes: latent float32 (rank,); rope float32 (rope_dim,); row float32 (values + rope_dim,).
    """
    scale_row(row, latent, rank, scale)
    for i in range(rank, values):
        put_f32(row + 4 * i, 0.0)
    scale_row(row + 4 * values, rope, rope_dim, scale)
