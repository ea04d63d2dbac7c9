"""Operations on tensors: each checks its arguments, makes the result if none is given, and runs a kernel."""

from pio.ops.activation import swiglu
from pio.ops.copy import copy
from pio.ops.elementwise import add, mul
from pio.ops.gather import gather
from pio.ops.linear import linear
from pio.ops.norm import fused_add_rms_norm, layer_norm, rms_norm
from pio.ops.reduce import first_non_finite
from pio.ops.rope import rope, rope_table

__all__ = [
    "add",
    "copy",
    "first_non_finite",
    "fused_add_rms_norm",
    "gather",
    "layer_norm",
    "linear",
    "mul",
    "rms_norm",
    "rope",
    "rope_table",
    "swiglu",
]
