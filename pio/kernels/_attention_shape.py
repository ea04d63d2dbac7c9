"""What kernels of attention read of a layer: one record of the sizes that stay the same from step to step."""

from __future__ import annotations

from typing import Final

from pio.kernels._attention_record import CAUSAL as CAUSAL
from pio.kernels._attention_record import GROUP as GROUP
from pio.kernels._attention_record import HEAD_DIM as HEAD_DIM
from pio.kernels._attention_record import KV_HEADS as KV_HEADS
from pio.kernels._attention_record import SCALE as SCALE
from pio.kernels._attention_record import SCRATCH as SCRATCH
from pio.kernels._attention_record import WINDOW as WINDOW
from pio.kernels._jit import kernel
from pio.kernels.simd import LANES, get_i64

FEW: Final = 8  # so many rows of a head compute for as long as memory takes to bring the next keys or values


@kernel
def width_of(shape: int) -> int:
    """Return the width at which a cache keeps values: whole vectors.

    Shapes: shape int64 (7,), the record.
    """
    return (get_i64(shape + HEAD_DIM) + LANES - 1) // LANES * LANES
