"""Linear layers whose heads have a matrix each: all heads of all rows in one job."""

from __future__ import annotations

from pio.kernels._formats import BLOCK, FORMATS, PAIR, RECORD, START
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels.linear import COLUMNS, ROW_BLOCK, ROWS, tile_block, tile_edge, tile_one
from pio.kernels.parallel import FINE, parallel_kernel_per_dtype
from pio.kernels.quantize import quantize_row
from pio.kernels.quantized_linear import quantized_columns
from pio.kernels.simd import itemsize

pair_bytes = PerDtype(lambda name: FORMATS[name].pair_bytes)


@kernel_per_dtype
def head_columns(y: int, x: int, w: int, first: int, last: int, rows: int, k: int, ldy: int, ldx: int) -> None:
    """Compute the outputs first <= c < last of one head, for every row.

    y[r, c] = sum_k x[r, k] * w[c, k]

    Shapes: x float32 (rows, k), row stride ldx; w (n, k) of the kernel's type; y float32 (rows, n), row stride ldy.
    Sums as in ``linear``, to the bit. y must not overlap x.
    """
    for r0 in range(0, rows, ROW_BLOCK):
        r1 = min(r0 + ROW_BLOCK, rows)
        whole = r0 + (r1 - r0) // ROWS * ROWS
        c = first
        while whole > r0 and c < last:
            step = COLUMNS if last - c >= COLUMNS else 1
            at_w = w + itemsize * c * k
            for r in range(r0, whole, ROWS):
                if step == COLUMNS:
                    tile_block(y + 4 * (r * ldy + c), x + 4 * r * ldx, at_w, k, ldy, ldx, k, 0)
                else:
                    tile_edge(y + 4 * (r * ldy + c), x + 4 * r * ldx, at_w, k, ldy, ldx, k, 0)
            c += step
        if whole < r1:
            for c in range(first, last):
                for r in range(whole, r1):
                    tile_one(y + 4 * (r * ldy + c), x + 4 * r * ldx, w + itemsize * c * k, k, ldy, ldx, k, 0)


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
        head_columns(at_y, at_x, at_w, left, right, rows, k, heads * n, ldx)
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
