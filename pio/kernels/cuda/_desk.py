"""What a unit of a linear layer needs again at its end; it lies in shared memory meanwhile, as registers are scarce."""

from __future__ import annotations

from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda.ptx import get_shared_i64, put_shared_i64, thread_index

# Fields, int64: addresses of outputs and of a bias; the first output; how many rows and outputs there are. Of a tile of
# many rows also what brings its stages: addresses of inputs and of weights, the first row, bytes from row to row.
OUTPUTS, BIAS, FIRST, ROWS, ENDS, INPUTS, WEIGHTS, TOP, STRIDE = (8 * i for i in range(9))
DESK_BYTES = 8 * 10


@device_function
def leave(desk: int, y: int, bias: int, c0: int, rows: int, n: int) -> None:
    """Write the fields, those of a unit; a barrier must be between this and whoever reads them, before and behind."""
    if thread_index() == 0:
        put_shared_i64(desk + OUTPUTS, y)
        put_shared_i64(desk + BIAS, bias)
        put_shared_i64(desk + FIRST, c0)
        put_shared_i64(desk + ROWS, rows)
        put_shared_i64(desk + ENDS, n)


@device_function
def recall(desk: int) -> tuple[int, int, int, int, int]:
    """Read the fields."""
    y, bias, c0 = get_shared_i64(desk + OUTPUTS), get_shared_i64(desk + BIAS), get_shared_i64(desk + FIRST)
    return y, bias, c0, get_shared_i64(desk + ROWS), get_shared_i64(desk + ENDS)


@device_function
def leave_sources(desk: int, x: int, w: int, r0: int, ldx: int) -> None:
    """Write the fields of a tile of many rows; as ``leave``."""
    if thread_index() == 0:
        put_shared_i64(desk + INPUTS, x)
        put_shared_i64(desk + WEIGHTS, w)
        put_shared_i64(desk + TOP, r0)
        put_shared_i64(desk + STRIDE, ldx)


@device_function
def sources(desk: int) -> tuple[int, int, int, int]:
    """Read the fields of a tile of many rows."""
    x, w = get_shared_i64(desk + INPUTS), get_shared_i64(desk + WEIGHTS)
    return x, w, get_shared_i64(desk + TOP), get_shared_i64(desk + STRIDE)
