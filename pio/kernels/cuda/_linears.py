"""Linear layers of one input, as ``pio.kernels._linears``: all outputs of all matrices are units of one launch.

Of few rows another kernel is launched than of many, see ``_variants``.
"""

from __future__ import annotations

from typing import Any

from pio.kernels._formats import FORMATS, PAIR, RECORD, START
from pio.kernels._jit import PerDtype
from pio.kernels.cuda._jit import by_rows, cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda._own_rows import OWN_SHARED, own_records, quantize_own
from pio.kernels.cuda.linear import (
    BLOCK,
    BLOCKS,
    FEW_SHARED,
    SHARED,
    STEP,
    few_float_unit,
    few_float_units,
    many_float_unit,
    many_float_units,
)
from pio.kernels.cuda.ptx import block_index, get_i64, grid_size
from pio.kernels.cuda.quantized_linear import (
    ask_for_unit,
    few_quantized_unit,
    few_quantized_units,
    many_quantized_unit,
    many_quantized_units,
    own_quantized_unit,
)
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


def units_of(key: str) -> Any:
    """Return how many units of work a matrix is: ``"few/int4"`` for few rows of that kind.

    ``"own/int4"`` is for rows, even fewer, that blocks quantize themselves.
    """
    how, _, kind = key.partition("/")
    if how in ("own", "few"):
        return few_quantized_units if kind in FORMATS else few_float_units
    return many_quantized_units if kind in FORMATS else many_float_units[kind]


def unit_of(key: str) -> Any:
    """Return what does one of these units."""
    how, _, kind = key.partition("/")
    if how == "own":
        return own_quantized_unit[kind]
    if how == "few":
        return (few_quantized_unit if kind in FORMATS else few_float_unit)[kind]
    return (many_quantized_unit if kind in FORMATS else many_float_unit)[kind]


units, do_unit = PerDtype(units_of), PerDtype(unit_of)
row = PerDtype(lambda key: row_bytes[key.partition("/")[2]])


def halves(made: PerDtype[Any]) -> tuple[PerDtype[Any], PerDtype[Any]]:
    """Return what is made for few rows of a kind, and what is made for many."""
    return PerDtype(lambda kind: made[f"few/{kind}"]), PerDtype(lambda kind: made[f"many/{kind}"])


@device_function
def ask_nothing(w: int, unit: int, n: int, k: int) -> None:
    """Leave weights to the loads that read them."""


@device_function
def rows_there(at: int, x: int, rows: int, k: int) -> int:
    """Return where rows are that came in their form."""
    return x


@device_function_per_dtype
def rows_here(at: int, x: int, rows: int, k: int) -> int:
    """Return where rows are that the block quantizes, before its first unit.

    Shapes: x float32 (rows, k).
    """
    if at == 0:
        for r in range(rows):
            quantize_own(r, x + 4 * r * k, k)
    return own_records()


def _own(made: PerDtype[Any], other: Any) -> PerDtype[Any]:
    """Return what is made for rows of a kind that blocks quantize, and what there is for others."""
    return PerDtype(lambda key: made[key[4:]] if key.startswith("own/") else other)


ask, rows_at = _own(ask_for_unit, ask_nothing), _own(rows_here, rows_there)


@device_function_per_dtype
def multiply_all(x: int, matrices: int, count: int, rows: int, k: int, add: int) -> None:
    """Compute linear layers of one input, by the units of few rows or of many.

    yi[r, c] = sum_k x[r, k] * wi[c, k] (+ yi[r, c] if add) (+ biasi[c] if biasi is not 0)

    Shapes: as ``few_linears``.
    """
    unit, i, at = block_index(), 0, 0
    while i < count:
        matrix = matrices + MATRIX * i
        own = units(rows, get_i64(matrix + N))
        if unit < own:  # what is known of the matrix is read anew for each unit: no registers hold it meanwhile
            y, w, bias, n = get_i64(matrix + Y), get_i64(matrix + W), get_i64(matrix + BIAS), get_i64(matrix + N)
            ask(w, unit, n, k)
            at = rows_at(at, x, rows, k)
            do_unit(y, at, w, bias, unit, rows, n, k, n, row(k), add)
            unit += grid_size()
        else:
            unit -= own
            i += 1


multiply_few, multiply_many = halves(multiply_all)
multiply_own = PerDtype(lambda kind: multiply_all[f"own/{kind}"])


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=FEW_SHARED)
def few_linears(x: int, matrices: int, count: int, rows: int, k: int, add: int) -> None:
    """Compute linear layers of one input of up to FEW rows, see ``multiply_all``.

    Shapes: x (rows, k) and wi (ni, k) as the kind of matrix has them; yi float32 (rows, ni); matrices int64 (count, 4),
    the fields above. A row's bits depend on nothing but the row. No y may overlap x.
    """
    multiply_few(x, matrices, count, rows, k, add)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=SHARED)
def many_linears(x: int, matrices: int, count: int, rows: int, k: int, add: int) -> None:
    """Compute linear layers of one input of more rows, see ``multiply_all``; a row's bits are those of few rows.

    Shapes: as ``few_linears``.
    """
    multiply_many(x, matrices, count, rows, k, add)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=OWN_SHARED)
def quantizing_linears(x: int, matrices: int, count: int, rows: int, k: int, add: int) -> None:
    """Quantize rows, each block for itself, and compute linear layers of them, see ``multiply_all``.

    Shapes: as ``few_linears``, but x float32 (rows, k), so few that ``sizes.gpu_own``. The bits are those of rows that
    were quantized before.
    """
    multiply_own(x, matrices, count, rows, k, add)


linears = by_rows("_linears.linears", few_linears, many_linears)
