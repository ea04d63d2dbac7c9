"""The record of a layer's latent attention, as kernels read it and ``ops.latent_attention`` makes it.

Its fields are int64, but the last, a float64: bytes of scratch for each part; how far tokens and heads lie apart in the
queries for latents and in those for rotated keys; heads; width of a latent and of a rotated key; factor of scores. It
is imported without a compiler.
"""

from __future__ import annotations

SCRATCH, TOKEN_LATENT, HEAD_LATENT, TOKEN_ROPE, HEAD_ROPE, HEADS, RANK, ROPE_DIM, SCALE = (8 * i for i in range(9))
