"""The record of a layer's attention, as kernels read it and ``ops.attention`` makes it; imported without a compiler.

Its fields are int64, but the last, a float64: bytes of scratch for each part; key and value heads, and queries for each
of them; width of a head; whether a token sees only positions up to its own, and how many of them, 0 for all; factor of
scores.
"""

from __future__ import annotations

SCRATCH, KV_HEADS, GROUP, HEAD_DIM, CAUSAL, WINDOW, SCALE = (8 * i for i in range(7))
