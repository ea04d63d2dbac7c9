"""Convolutions over two dimensions, as ``pio.kernels.conv``: a block takes a tile of outputs and places.

What the tile meets is laid out in shared memory, DEPTH of its products at a time, so that each number that is read
meets many. Every sum is in the order of the CPU's kernel, hence the same bits.
"""

from __future__ import annotations

from pio.kernels.cuda._jit import cuda_kernel, device_function
from pio.kernels.cuda._quads import store_four_of
from pio.kernels.cuda.ptx import (
    block_index,
    fma,
    get_f32,
    get_i64,
    grid_size,
    load_shared_four,
    plus,
    put_shared_f32,
    quotient,
    shared_memory,
    single,
    syncthreads,
    thread_index,
)

BLOCK = 256
TILE = 64  # outputs, and places: four times four of each thread
DEPTH = 16
LINE = TILE + 4  # numbers from one product to the next, so that those who write do not meet in a bank
INPUTS = 4 * DEPTH * LINE  # where in shared memory the inputs are, behind the weights
EACH = DEPTH * TILE // BLOCK  # numbers of either that a thread lays out

# the record of sizes: channels, height, width, outputs, kernel, stride, padding, dilation, groups, height, width
(CHANNELS, HEIGHT, WIDTH, OUTPUTS, TALL, WIDE, DOWN, ACROSS, ABOVE, LEFT, DILATED_DOWN, DILATED, GROUPS, OUT_HEIGHT,
 OUT_WIDTH) = (8 * i for i in range(15))  # fmt: skip


@device_function
def met(x: int, shape: int, k: int, depth: int, row: int, column: int) -> float:
    """Return what an output meets at product k of its sum; beyond the edges and the sum there is 0.

    Shapes: x float32 (channels, height, width), of one group; shape as ``conv2d``.
    """
    tall, wide = get_i64(shape + TALL), get_i64(shape + WIDE)
    height, width = get_i64(shape + HEIGHT), get_i64(shape + WIDTH)
    line = quotient(k, wide)
    c = quotient(line, tall)
    y = row * get_i64(shape + DOWN) - get_i64(shape + ABOVE) + (line - c * tall) * get_i64(shape + DILATED_DOWN)
    z = column * get_i64(shape + ACROSS) - get_i64(shape + LEFT) + (k - line * wide) * get_i64(shape + DILATED)
    if k < depth and 0 <= y and y < height and 0 <= z and z < width:
        return get_f32(x + 4 * ((c * height + y) * width + z))
    return single(0.0)


@device_function
def lay_out(x: int, weight: int, shape: int, depth: int, k0: int, o0: int, row: int, column: int) -> None:
    """Put DEPTH products of a tile into shared memory: weights (DEPTH, TILE) and inputs (DEPTH, TILE).

    Shapes: x float32 (channels, height, width) and weight float32 (outputs, depth), of one group; row and column are
    those of the thread's own place, thread_index() % TILE.
    """
    outputs, at = get_i64(shape + OUTPUTS), thread_index()
    for q in range(EACH):
        k = at // TILE + q * (BLOCK // TILE)
        own = met(x, shape, k0 + k, depth, row, column)
        put_shared_f32(shared_memory() + INPUTS + 4 * (k * LINE + at % TILE), own)
        o, j = at // DEPTH + q * (BLOCK // DEPTH), at % DEPTH
        value = single(0.0)
        if o0 + o < outputs and k0 + j < depth:
            value = get_f32(weight + 4 * ((o0 + o) * depth + k0 + j))
        put_shared_f32(shared_memory() + 4 * (j * LINE + o), value)


@cuda_kernel(block=BLOCK, blocks=2, shared=2 * INPUTS)
def conv2d(out: int, x: int, weight: int, bias: int, scratch: int, shape: int) -> None:
    """Convolve.

    out[g, o, y, z] = bias[g, o] + sum_c,i,j weight[g, o, c, i, j] * x[g, c, y * stride - padding + i * dilation, ...]

    Shapes: out float32 (groups, outputs, out_height, out_width); x float32 (groups, channels, height, width); weight
    float32 (groups, outputs, channels, kernel_height, kernel_width); bias float32 (groups, outputs), or 0; scratch is
    not used; shape the record of channels, height, width, outputs, kernel, stride, padding and dilation (each down and
    across), groups, out_height, out_width. Sums in float32 in the order of the weights, bias last.
    """
    channels, outputs = get_i64(shape + CHANNELS), get_i64(shape + OUTPUTS)
    depth = channels * get_i64(shape + TALL) * get_i64(shape + WIDE)
    wide = get_i64(shape + OUT_WIDTH)
    places = get_i64(shape + OUT_HEIGHT) * wide
    across, down = (places + TILE - 1) // TILE, (outputs + TILE - 1) // TILE
    job, mine = block_index(), thread_index()
    left, right = shared_memory() + 16 * (mine // 16), shared_memory() + INPUTS + 16 * (mine % 16)
    while job < get_i64(shape + GROUPS) * down * across:
        line = quotient(job, across)
        group = quotient(line, down)
        p0, o0 = (job - line * across) * TILE, (line - group * down) * TILE
        place = p0 + mine % TILE
        row = quotient(place, wide)
        own_x = x + 4 * group * channels * get_i64(shape + HEIGHT) * get_i64(shape + WIDTH)
        own_weight = weight + 4 * group * outputs * depth
        zero = single(0.0)
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
        c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero
        for k0 in range(0, depth, DEPTH):
            lay_out(own_x, own_weight, shape, depth, k0, o0, row, place - row * wide)
            syncthreads()
            for k in range(DEPTH):
                w0, w1, w2, w3 = load_shared_four(left + 4 * LINE * k)
                v0, v1, v2, v3 = load_shared_four(right + 4 * LINE * k)
                a0, a1, a2, a3 = fma(v0, w0, a0), fma(v1, w0, a1), fma(v2, w0, a2), fma(v3, w0, a3)
                b0, b1, b2, b3 = fma(v0, w1, b0), fma(v1, w1, b1), fma(v2, w1, b2), fma(v3, w1, b3)
                c0, c1, c2, c3 = fma(v0, w2, c0), fma(v1, w2, c1), fma(v2, w2, c2), fma(v3, w2, c3)
                d0, d1, d2, d3 = fma(v0, w3, d0), fma(v1, w3, d1), fma(v2, w3, d2), fma(v3, w3, d3)
            syncthreads()
        o, p, first = o0 + 4 * (mine // 16), p0 + 4 * (mine % 16), group * outputs
        put_outputs(out, bias, first, o, outputs, p, places, a0, a1, a2, a3)
        put_outputs(out, bias, first, o + 1, outputs, p, places, b0, b1, b2, b3)
        put_outputs(out, bias, first, o + 2, outputs, p, places, c0, c1, c2, c3)
        put_outputs(out, bias, first, o + 3, outputs, p, places, d0, d1, d2, d3)
        job += grid_size()


@device_function
def put_outputs(
    out: int, bias: int, first: int, o: int, outputs: int, p: int, places: int, a: float, b: float, c: float, d: float
) -> None:
    """Write four places of output o of the group that begins at output ``first``, if there is one.

    Shapes: out float32 (groups * outputs, places); bias float32 (groups * outputs,), or 0.
    """
    if o < outputs:
        own = single(0.0)
        if bias != 0:
            own = get_f32(bias + 4 * (first + o))
        store_four_of(out + 4 * (first + o) * places, p, places, plus(a, own), plus(b, own), plus(c, own), plus(d, own))
