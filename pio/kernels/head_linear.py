"""Linear layers whose heads have a matrix each: all heads of all rows in one job."""

from __future__ import annotations

from pio.kernels._formats import BLOCK, FORMATS, PAIR, RECORD, START
from pio.kernels._jit import PerDtype
from pio.kernels.linear import COLUMNS, linear_columns
from pio.kernels.parallel import FINE, parallel_kernel_per_dtype
from pio.kernels.quantize import quantize_row
from pio.kernels.quantized_linear import quantized_columns
from pio.kernels.simd import itemsize

pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)


@parallel_kernel_per_dtype(parts_per_thread=FINE)
def head_linear(
    y: int,
    x: int,
    w: int,
    rows: int,
    heads: int,
    n: int,
    k: int,
    ldx: int,
    head_x: int,
    head_w: int,
    part: int,
    parts: int,
) -> None:
    """Multiply each head's rows by its own matrix, the outputs of all heads split over threads.

    y[r, h, c] = sum_k x[r, h, k] * w[h, c, k]

    Shapes: x float32 (rows, heads, k), strides of rows and heads ldx and head_x; w (heads, n, k) of the kernel's type,
    head stride head_w; y float32 (rows, heads, n). Sums in float32, sixteen lanes over k; a row's bits depend on
    nothing but the row. y must not overlap x.
    """
    steps = (n + COLUMNS - 1) // COLUMNS
    first, last = part * heads * steps // parts, (part + 1) * heads * steps // parts
    while first < last:
        head = first // steps
        end = min(last, (head + 1) * steps)
        at_y, at_x, at_w = y + 4 * head * n, x + 4 * head * head_x, w + itemsize * head * head_w
        left, right = (first - head * steps) * COLUMNS, min((end - head * steps) * COLUMNS, n)
        linear_columns(at_y, at_x, at_w, 0, left, right, rows, k, heads * n, ldx, 0)
        first = end


@parallel_kernel_per_dtype
def quantize_heads(
    out: int, x: int, rows: int, heads: int, k: int, ldx: int, head_x: int, part: int, parts: int
) -> None:
    """Quantize activations for weights of the kernel's format, head by head, split by rows.

    out[h, r] = what ``quantize`` makes of x[r, h]

    Shapes: x float32 (rows, heads, k), strides of rows and heads ldx and head_x; out (heads, rows, 16 +
    80 ceil(k / 64)) bytes. out must not overlap x.
    """
    nbytes = START + (k + PAIR - 1) // PAIR * RECORD
    for i in range(part * heads * rows // parts, (part + 1) * heads * rows // parts):
        quantize_row(out + i * nbytes, x + 4 * (i % rows * ldx + i // rows * head_x), k)


@parallel_kernel_per_dtype(parts_per_thread=FINE)
def quantized_head_linear(
    y: int, x: int, w: int, rows: int, heads: int, n: int, pairs: int, part: int, parts: int
) -> None:
    """Multiply each head's rows by its own packed matrix, the blocks of all heads split over threads.

    y[r, h, c] = sum_k x[h, r, k] * w[h, c, k]

    Shapes: x (heads, rows, 16 + 80 pairs) bytes and w (heads, ceil(n / 16), pairs, bytes) of the kernel's format; y
    float32 (rows, heads, n). Sums as in ``quantized_linear``, to the bit. y must not overlap x.
    """
    blocks, nbytes = (n + BLOCK - 1) // BLOCK, START + pairs * RECORD
    first, last = part * heads * blocks // parts, (part + 1) * heads * blocks // parts
    while first < last:
        head = first // blocks
        end = min(last, (head + 1) * blocks)
        at_y, at_x, at_w = y + 4 * head * n, x + head * rows * nbytes, w + head * blocks * pairs * pair_bytes
        left, right = first - head * blocks, end - head * blocks
        quantized_columns(at_y, at_x, at_w, 0, left, right, rows, n, pairs, heads * n, 0)
        first = end
