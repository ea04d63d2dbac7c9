"""Linear layers of one input, as ``pio.kernels._linears``: all outputs of all matrices are units of one launch."""

from __future__ import annotations

from typing import Any

from pio.kernels._formats import FORMATS, PAIR, RECORD, START
from pio.kernels._jit import PerDtype
from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function
from pio.kernels.cuda.linear import BLOCK, BLOCKS, SHARED, STEP, float_unit, float_units
from pio.kernels.cuda.ptx import block_index, get_i64, grid_size
from pio.kernels.cuda.quantized_linear import quantized_unit, quantized_units
from pio.kernels.sizes import ROUNDED

# What is known of a matrix, int64: addresses of outputs, of weights and of a bias, 0 for none; how many outputs.
Y, W, BIAS, N = (8 * i for i in range(4))
MATRIX = 32  # bytes


@device_function
def float_row(k: int) -> int:
    """Bytes of a row of float32."""
    return 4 * k


@device_function
def rounded_row(k: int) -> int:
    """Bytes of a rounded row."""
    return (k + STEP - 1) // STEP * STEP * 2


@device_function
def quantized_row(k: int) -> int:
    """Bytes of a quantized row."""
    return START + (k + PAIR - 1) // PAIR * RECORD


def _row(kind: str) -> Any:
    return quantized_row if kind in FORMATS else rounded_row if kind == ROUNDED else float_row


row_bytes = PerDtype(_row)  # of activations as this kind of matrix meets them
units: PerDtype[Any] = PerDtype(lambda kind: quantized_units if kind in FORMATS else float_units[kind])
do_unit: PerDtype[Any] = PerDtype(lambda kind: (quantized_unit if kind in FORMATS else float_unit)[kind])


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=SHARED)
def linears(x: int, matrices: int, count: int, rows: int, k: int, add: int) -> None:
    """Compute linear layers of one input.

    yi[r, c] = sum_k x[r, k] * wi[c, k] (+ yi[r, c] if add) (+ biasi[c] if biasi is not 0)

    Shapes: x (rows, k) and wi (ni, k) as the kind of matrix has them; yi float32 (rows, ni); matrices int64 (count, 4),
    the fields above. A row's bits depend on nothing but the row. No y may overlap x.
    """
    unit, i = block_index(), 0
    while i < count:
        matrix = matrices + MATRIX * i
        n = get_i64(matrix + N)
        own = units(rows, n)
        while unit < own:
            y, w, bias = get_i64(matrix + Y), get_i64(matrix + W), get_i64(matrix + BIAS)
            do_unit(y, x, w, bias, unit, rows, n, k, n, row_bytes(k), add)
            unit += grid_size()
        unit -= own
        i += 1
