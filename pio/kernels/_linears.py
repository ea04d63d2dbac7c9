"""Linear layers of one input, as if their weights were stacked: one job, however many and whatever made of.

What multiplies is chosen by the kind of matrix: an element type (``linear``), ROUNDED (``bfloat16_linear``), or a
format (``quantized_linear``).
"""

from __future__ import annotations

from typing import Any, Final

from pio.kernels import bfloat16_linear, linear
from pio.kernels import quantized_linear as quantized
from pio.kernels._amx_linear import LEAST
from pio.kernels._amx_tile import BLOCKS
from pio.kernels._formats import BLOCK, FORMATS, PAIR
from pio.kernels._jit import PerDtype, kernel, kernel_per_dtype
from pio.kernels._processor import AMX
from pio.kernels.bfloat16_linear import bfloat16_columns
from pio.kernels.linear import linear_columns
from pio.kernels.parallel import FINE, parallel_kernel_per_dtype
from pio.kernels.quantized_linear import quantized_columns
from pio.kernels.quantized_tiles import PAIRED
from pio.kernels.simd import get_i64
from pio.kernels.sizes import ROUNDED

# What is known of a matrix, int64: addresses of outputs, of weights and of a bias, 0 for none; how many outputs.
Y, W, BIAS, N = (8 * i for i in range(4))
MATRIX: Final = 32  # bytes


@kernel_per_dtype
def packed_outputs(
    y: int, x: int, w: int, bias: int, first: int, last: int, rows: int, n: int, k: int, add: int
) -> None:
    """Compute the outputs first <= c < last of every row with a packed matrix; whole blocks, up to the last output.

    Shapes: as ``quantized_columns``, whose y is (rows, n).
    """
    end = (last + BLOCK - 1) // BLOCK
    quantized_columns(y, x, w, bias, first // BLOCK, end, rows, n, (k + PAIR - 1) // PAIR, n, add)


@kernel_per_dtype
def plain_outputs(
    y: int, x: int, w: int, bias: int, first: int, last: int, rows: int, n: int, k: int, add: int
) -> None:
    """Compute the outputs first <= c < last of every row.

    Shapes: as ``linear_columns``, whose x is (rows, k) and y (rows, n).
    """
    linear_columns(y, x, w, bias, first, last, rows, k, n, k, add)


@kernel
def rounded_outputs(
    y: int, x: int, w: int, bias: int, first: int, last: int, rows: int, n: int, k: int, add: int
) -> None:
    """Compute the outputs first <= c < last of every rounded row.

    Shapes: as ``bfloat16_columns``, whose y is (rows, n).
    """
    bfloat16_columns(y, x, w, bias, first, last, rows, k, n, add)


def _outputs(kind: str) -> Any:
    return packed_outputs[kind] if kind in FORMATS else rounded_outputs if kind == ROUNDED else plain_outputs[kind]


def _unit(kind: str) -> int:
    return BLOCK if kind in FORMATS else bfloat16_linear.COLUMNS if kind == ROUNDED else linear.COLUMNS


multiply = PerDtype(_outputs)
unit = PerDtype(_unit)  # outputs that are dealt to parts together: whole tiles, so that only the last meets an edge
# Units that many rows meet together, and how many rows do.
most = PerDtype(lambda kind: 1 if kind not in FORMATS else BLOCKS if AMX else 2 if PAIRED else 1)
MANY: Final = LEAST if AMX else quantized.MANY


@kernel
def units_of(matrices: int, count: int, step: int) -> int:
    """Return in how many pieces of ``step`` outputs matrices can be dealt.

    Shapes: matrices int64 (count, 4), the fields above.
    """
    units = 0
    for i in range(count):
        units += (get_i64(matrices + MATRIX * i + N) + step - 1) // step
    return units


@parallel_kernel_per_dtype(parts_per_thread=FINE)
def linears(x: int, matrices: int, count: int, rows: int, k: int, add: int, part: int, parts: int) -> None:
    """Compute linear layers of one input, the outputs of all split over threads.

    yi[r, c] = sum_k x[r, k] * wi[c, k] (+ yi[r, c] if add) (+ biasi[c] if biasi is not 0)

    Shapes: x (rows, k) and wi (ni, k) as the kind of matrix has them; yi float32 (rows, ni); matrices int64 (count, 4),
    the fields above. A row's bits depend on nothing but the row. No y may overlap x.
    """
    step, together = int(unit), int(most) if rows >= MANY else 1
    while together > 1 and FINE * units_of(matrices, count, step) < 2 * together * parts:
        together //= 2  # each thread is to have two pieces at least
    step *= together
    units = units_of(matrices, count, step)
    first, last = part * units // parts, (part + 1) * units // parts
    for i in range(count):
        matrix = matrices + MATRIX * i
        n = get_i64(matrix + N)
        own = (n + step - 1) // step
        low, high = max(first, 0), min(last, own)
        if low < high:
            y, w, bias = get_i64(matrix + Y), get_i64(matrix + W), get_i64(matrix + BIAS)
            multiply(y, x, w, bias, low * step, min(high * step, n), rows, n, k, add)
        first, last = first - own, last - own
