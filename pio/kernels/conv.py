"""Convolutions over two dimensions: what each output meets is laid out beside its neighbours', then multiplied."""

from __future__ import annotations

from pio.kernels._jit import kernel
from pio.kernels._partial_vectors import store_up_to
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import LANES, fma, get_f32, get_i64, load_f32, put_f32, splat
from pio.kernels.sizes import CONV_COLUMNS, CONV_PARTS


@kernel
def input_line(out: int, x: int, first: int, n: int, width: int, step: int, begin: int) -> None:
    """Lay out what a row of outputs meets at one place of the kernel, zeros beyond the edges.

    out[i] = x[(first + i) * step + begin] where that is a column, else 0,  0 <= i < n; 0 up to the next whole vector

    Shapes: out float32 (ceil(n / 16) * 16,); x float32 (width,).
    """
    for i in range((n + LANES - 1) // LANES * LANES):
        column = (first + i) * step + begin
        put_f32(out + 4 * i, get_f32(x + 4 * column) if i < n and 0 <= column < width else 0.0)


@kernel
def lay_out(panel: int, x: int, shape: int, row: int, first: int, n: int) -> None:
    """Lay out what n outputs of one row meet.

    panel[(c, i, j), o] = x[c, row * stride - padding + i * dilation, (first + o) * stride - padding + j * dilation]

    Shapes: panel float32 (channels * kernel_height * kernel_width, CONV_COLUMNS); x float32 (channels, height, width);
    shape as ``conv2d``. Beyond the edges there is 0.
    """
    channels, height, width = get_i64(shape), get_i64(shape + 8), get_i64(shape + 16)
    tall, wide = get_i64(shape + 32), get_i64(shape + 40)
    for c in range(channels):
        for i in range(tall):
            y = row * get_i64(shape + 48) - get_i64(shape + 64) + i * get_i64(shape + 80)
            line = x + 4 * (c * height + y) * width
            seen = width if 0 <= y < height else 0
            for j in range(wide):
                begin = j * get_i64(shape + 88) - get_i64(shape + 72)
                input_line(panel, line, first, n, seen, get_i64(shape + 56), begin)
                panel += 4 * CONV_COLUMNS


@kernel
def conv_outputs(out: int, panel: int, weight: int, depth: int, n: int, bias: float) -> None:
    """Multiply what n outputs of one channel meet by its weights.

    out[o] = bias + sum_k weight[k] * panel[k, o], summed in the order of k, bias last

    Shapes: out float32 (n,); panel float32 (depth, CONV_COLUMNS); weight float32 (depth,). Sums in float32.
    """
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for k in range(depth):
        w, at = splat(get_f32(weight + 4 * k)), panel + 4 * k * CONV_COLUMNS
        a = fma(load_f32(at), w, a)
        b = fma(load_f32(at + 4 * LANES), w, b)
        c = fma(load_f32(at + 8 * LANES), w, c)
        d = fma(load_f32(at + 12 * LANES), w, d)
    store_up_to(out, a + splat(bias), n)
    store_up_to(out + 4 * LANES, b + splat(bias), n - LANES)
    store_up_to(out + 8 * LANES, c + splat(bias), n - 2 * LANES)
    store_up_to(out + 12 * LANES, d + splat(bias), n - 3 * LANES)


@parallel_kernel(parts_per_thread=CONV_PARTS)
def conv2d(out: int, x: int, weight: int, bias: int, scratch: int, shape: int, part: int, parts: int) -> None:
    """Convolve; each part does some stretches of output rows.

    out[g, o, y, z] = bias[g, o] + sum_c,i,j weight[g, o, c, i, j] * x[g, c, y * stride - padding + i * dilation, ...]

    Shapes: out float32 (groups, outputs, out_height, out_width); x float32 (groups, channels, height, width); weight
    float32 (groups, outputs, channels, kernel_height, kernel_width); bias float32 (groups, outputs), or 0; scratch
    float32 (parts, channels * kernel_height * kernel_width, CONV_COLUMNS); shape the record of channels, height,
    width, outputs, kernel, stride, padding and dilation (each down and across), groups, out_height, out_width.
    """
    channels, outputs = get_i64(shape), get_i64(shape + 24)
    depth = channels * get_i64(shape + 32) * get_i64(shape + 40)
    plane = get_i64(shape + 8) * get_i64(shape + 16)
    groups, tall, wide = get_i64(shape + 96), get_i64(shape + 104), get_i64(shape + 112)
    panel = scratch + 4 * part * depth * CONV_COLUMNS
    stretches = (wide + CONV_COLUMNS - 1) // CONV_COLUMNS
    jobs = groups * tall * stretches
    for job in range(part * jobs // parts, (part + 1) * jobs // parts):
        first = job % stretches * CONV_COLUMNS
        row, group = job // stretches % tall, job // stretches // tall
        n = min(CONV_COLUMNS, wide - first)
        for k in range(0 if n == CONV_COLUMNS else depth):  # what vectors beyond the last output read
            for i in range((n + LANES - 1) // LANES * LANES, CONV_COLUMNS):
                put_f32(panel + 4 * (k * CONV_COLUMNS + i), 0.0)
        lay_out(panel, x + 4 * group * channels * plane, shape, row, first, n)
        for o in range(group * outputs, (group + 1) * outputs):
            own = get_f32(bias + 4 * o) if bias != 0 else 0.0
            to = out + 4 * ((o * tall + row) * wide + first)
            conv_outputs(to, panel, weight + 4 * o * depth, depth, n, own)
