"""What kernels of latent attention read of a layer: one record of the sizes that stay the same from step to step."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels._rows import scale_row
from pio.kernels.simd import put_f32

# int64, but the last, a float64: bytes of scratch for each part; how far tokens and heads lie apart in the queries for
# latents and in those for rotated keys; heads; width of a latent and of a rotated key; factor of scores
SCRATCH, TOKEN_LATENT, HEAD_LATENT, TOKEN_ROPE, HEAD_ROPE, HEADS, RANK, ROPE_DIM, SCALE = (8 * i for i in range(9))


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
