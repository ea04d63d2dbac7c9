"""What kernels of attention read of a layer: one record of the sizes that stay the same from step to step."""

from __future__ import annotations

from typing import Final

from pio.kernels._jit import kernel
from pio.kernels.simd import LANES, get_i64

# int64, but the last, a float64: bytes of scratch for each part; key and value heads, and queries for each of them;
# width of a head; whether a token sees only positions up to its own, and how many of them, 0 for all; factor of scores
SCRATCH, KV_HEADS, GROUP, HEAD_DIM, CAUSAL, WINDOW, SCALE = (8 * i for i in range(7))

FEW: Final = 8  # so many rows of a head compute for as long as memory takes to bring the next keys or values


@kernel
def width_of(shape: int) -> int:
    """Return the width at which a cache keeps values: whole vectors.

    Shapes: shape int64 (7,), the record.
    """
    return (get_i64(shape + HEAD_DIM) + LANES - 1) // LANES * LANES
