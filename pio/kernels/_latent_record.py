"""The record of a layer's latent attention, as kernels read it and ``ops.latent_attention`` makes it.

It begins as that of ``_attention_record``: latents are one key and value head, as wide as a latent is, for all heads of
queries, and a token sees all positions up to its own. Behind that, int64 each: how far tokens and heads lie apart in
the queries for latents and in those for rotated keys; width of a rotated key. It is imported without a compiler.
"""

from __future__ import annotations

from pio.kernels._attention_record import GROUP as HEADS
from pio.kernels._attention_record import HEAD_DIM as RANK
from pio.kernels._attention_record import SCALE as SCALE
from pio.kernels._attention_record import SCRATCH as SCRATCH

__all__ = ["HEADS", "HEAD_LATENT", "HEAD_ROPE", "RANK", "ROPE_DIM", "SCALE", "SCRATCH", "TOKEN_LATENT", "TOKEN_ROPE"]

TOKEN_LATENT, HEAD_LATENT, TOKEN_ROPE, HEAD_ROPE, ROPE_DIM = (SCALE + 8 * i for i in range(1, 6))
