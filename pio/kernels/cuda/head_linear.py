"""Linear layers whose heads have a matrix each, as ``pio.kernels.head_linear``: all heads in one launch."""

from __future__ import annotations

from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import PAIR, RECORD, START
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._jit import by_rows, cuda_kernel_per_dtype, device_function_per_dtype
from pio.kernels.cuda._linears import do_unit, halves, quantized_row, units
from pio.kernels.cuda._own_rows import OWN_SHARED, own_records, quantize_own
from pio.kernels.cuda.linear import BLOCK, BLOCKS, FEW_SHARED, SHARED
from pio.kernels.cuda.ptx import block_index, grid_size
from pio.kernels.cuda.quantize import BLOCK as QUANTIZE_BLOCK
from pio.kernels.cuda.quantize import chunks_of, quantize_some
from pio.kernels.cuda.quantized_linear import ask_for_unit, few_quantized_units, own_quantized_unit
from pio.kernels.cuda.quantized_tiles import pair_bytes
from pio.kernels.cuda.tiles import weight_bytes

bytes_of = PerDtype(lambda key: weight_bytes[key.partition("/")[2]])  # of a weight
pair_of = PerDtype(lambda key: pair_bytes[key.partition("/")[2]])


@device_function_per_dtype
def multiply_heads(
    y: int, x: int, w: int, rows: int, heads: int, n: int, k: int, ldx: int, head_x: int, head_w: int
) -> None:
    """Multiply each head's rows by its own matrix, by the units of few rows or of many.

    y[r, h, c] = sum_k x[r, h, k] * w[h, c, k]

    Shapes: as ``few_heads``.
    """
    each, unit = units(rows, n), block_index()
    while unit < heads * each:
        head = unit // each
        at_w = w + bytes_of * head * head_w
        own = unit - head * each
        do_unit(y + 4 * head * n, x + 4 * head * head_x, at_w, 0, own, rows, n, k, heads * n, 4 * ldx, 0)
        unit += grid_size()


multiply_few, multiply_many = halves(multiply_heads)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=FEW_SHARED)
def few_heads(
    y: int, x: int, w: int, rows: int, heads: int, n: int, k: int, ldx: int, head_x: int, head_w: int
) -> None:
    """Multiply each head's up to FEW rows by its own matrix, see ``multiply_heads``.

    Shapes: x float32 (rows, heads, k), strides of rows and heads ldx and head_x; w (heads, n, k) of the kernel's type,
    head stride head_w; y float32 (rows, heads, n). Sums as in ``linear``, to the bit. y must not overlap x.
    """
    multiply_few(y, x, w, rows, heads, n, k, ldx, head_x, head_w)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=SHARED)
def many_heads(
    y: int, x: int, w: int, rows: int, heads: int, n: int, k: int, ldx: int, head_x: int, head_w: int
) -> None:
    """Multiply each head's more rows by its own matrix, see ``multiply_heads``.

    Shapes: as ``few_heads``.
    """
    multiply_many(y, x, w, rows, heads, n, k, ldx, head_x, head_w)


head_linear = by_rows("head_linear.head_linear", few_heads, many_heads)


@cuda_kernel_per_dtype(block=QUANTIZE_BLOCK)
def quantize_heads(out: int, x: int, rows: int, heads: int, k: int, ldx: int, head_x: int) -> None:
    """Quantize activations for weights of the kernel's format, head by head.

    out[h, r] = what ``quantize`` makes of x[r, h]

    Shapes: x float32 (rows, heads, k), strides of rows and heads ldx and head_x; out (heads, rows, 16 +
    80 ceil(k / 64)) bytes. out must not overlap x.
    """
    nbytes, chunks, unit = START + (k + PAIR - 1) // PAIR * RECORD, chunks_of(k), block_index()
    while unit < heads * rows * chunks:
        i = unit // chunks
        head = i // rows
        quantize_some(out + i * nbytes, x + 4 * ((i - head * rows) * ldx + head * head_x), unit - i * chunks, k)
        unit += grid_size()


@device_function_per_dtype
def multiply_quantized(y: int, x: int, w: int, rows: int, heads: int, n: int, pairs: int) -> None:
    """Multiply each head's rows by its own packed matrix, by the units of few rows or of many.

    y[r, h, c] = sum_k x[h, r, k] * w[h, c, k]

    Shapes: as ``few_quantized_heads``.
    """
    each, unit, nbytes = units(rows, n), block_index(), START + pairs * RECORD
    matrix = (n + OUTPUTS - 1) // OUTPUTS * pairs * pair_of
    while unit < heads * each:
        head = unit // each
        own, at_x = unit - head * each, x + head * rows * nbytes
        do_unit(y + 4 * head * n, at_x, w + head * matrix, 0, own, rows, n, PAIR * pairs, heads * n, nbytes, 0)
        unit += grid_size()


quantized_few, quantized_many = halves(multiply_quantized)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=FEW_SHARED)
def few_quantized_heads(y: int, x: int, w: int, rows: int, heads: int, n: int, pairs: int) -> None:
    """Multiply each head's up to FEW rows by its own packed matrix, see ``multiply_quantized``.

    Shapes: x (heads, rows, 16 + 80 pairs) bytes and w (heads, ceil(n / 16), pairs, bytes) of the kernel's format; y
    float32 (rows, heads, n). Sums as in ``quantized_linear``, to the bit. y must not overlap x.
    """
    quantized_few(y, x, w, rows, heads, n, pairs)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=SHARED)
def many_quantized_heads(y: int, x: int, w: int, rows: int, heads: int, n: int, pairs: int) -> None:
    """Multiply each head's more rows by its own packed matrix, see ``multiply_quantized``.

    Shapes: as ``few_quantized_heads``.
    """
    quantized_many(y, x, w, rows, heads, n, pairs)


@cuda_kernel_per_dtype(block=BLOCK, blocks=BLOCKS, shared=OWN_SHARED)
def quantizing_heads(y: int, x: int, w: int, rows: int, heads: int, n: int, k: int, ldx: int, head_x: int) -> None:
    """Quantize each head's rows, each block for itself, and multiply them by its own packed matrix.

    y[r, h, c] = sum_k x[r, h, k] * w[h, c, k]

    Shapes: x float32 (rows, heads, k), strides of rows and heads ldx and head_x, so few rows that ``sizes.gpu_own``; w
    and y as ``few_quantized_heads``. The bits are those of rows that were quantized before. y must not overlap x.
    """
    each, unit, line = few_quantized_units(rows, n), block_index(), quantized_row(k)
    matrix = (n + OUTPUTS - 1) // OUTPUTS * ((k + PAIR - 1) // PAIR) * pair_bytes
    while unit < heads * each:
        head = unit // each
        own, at_w = unit - head * each, w + head * matrix
        ask_for_unit(at_w, own, n, k)
        for r in range(rows):
            quantize_own(r, x + 4 * (r * ldx + head * head_x), k)
        own_quantized_unit(y + 4 * head * n, own_records(), at_w, 0, own, rows, n, k, heads * n, line, 0)
        unit += grid_size()


quantized_head_linear = by_rows("head_linear.quantized_head_linear", few_quantized_heads, many_quantized_heads)
