"""Convolution of each channel with its own past, a few tokens wide, whose state is the last tokens of a sequence."""

from __future__ import annotations

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels._slices import past_of, sequences_of, slot_of, source_of, start_of, tentative_of
from pio.kernels.activation import silu_lanes
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    fma,
    get_i64,
    itemsize,
    load,
    load_f32,
    load_part,
    load_part_f32,
    splat,
    store_f32,
    store_part_f32,
)

PARTS = 4  # pieces for each thread: finer ones would read too little of each token at once
BLOCK = 4 * LANES  # channels beside each other
CHUNK = 1024  # channels that walk the tokens together: what they read again stays in the first-level cache
# What is known of a part of the inputs, int64: where it begins; width of a head, and of all of them; how far tokens and
# heads lie apart, in elements. The channels are the heads of all parts, one after the other.
X, DIM, CHANNELS, TOKEN, HEAD = (8 * i for i in range(5))
INPUT = 40  # bytes


@kernel
def clear_columns(x: int, rows: int, first: int, last: int, columns: int) -> None:
    """Set some columns of all rows to zero.

    x[r, c] = 0,  first <= c < last

    Shapes: x float32 (rows, columns).
    """
    for r in range(rows):
        for c in range(first, last, LANES):
            store_up_to(x + 4 * (r * columns + c), splat(0.0), last - c)


@kernel
def copy_columns(out: int, x: int, rows: int, first: int, last: int, columns: int, ldx: int) -> None:
    """Copy some columns of all rows.

    out[r, c] = x[r, c],  first <= c < last

    Shapes: out float32 (rows, columns); x float32 (rows, columns), row stride ldx.
    """
    for r in range(rows):
        for c in range(first, last, LANES):
            store_up_to(out + 4 * (r * columns + c), load_up_to(x + 4 * (r * ldx + c), last - c), last - c)


@kernel
def keep_last(state: int, x: int, tokens: int, before: int, first: int, last: int, channels: int, ldx: int) -> None:
    """Make the last inputs of a sequence its state.

    state[r] = input[tokens + r],  0 <= r < before, where input is the old state and then x

    Shapes: state float32 (before, channels); x float32 (tokens, channels), token stride ldx; of both the channels
    first <= c < last.
    """
    for r in range(before):
        i = tokens + r
        source = state + 4 * i * channels if i < before else x + 4 * (i - before) * ldx
        for c in range(first, last, LANES):
            store_up_to(state + 4 * (r * channels + c), load_up_to(source + 4 * c, last - c), last - c)


@kernel_per_dtype
def conv_lanes(
    out: int, old: int, new: int, weight: int, past: int, width: int, n: int, channels: int, ldx: int
) -> None:
    """Convolve n <= 16 channels of one token.

    out = silu(sum_j weight[j] * input[j]), summed in the order of j, where input[j] is old[j] for j < past, else new[j]

    Shapes: out float32 (n,); old, new float32 (width, n), row strides channels, ldx; weight (width, n) of the kernel's
    type, row stride channels.
    """
    acc = splat(0.0)
    for j in range(width):
        source = old + 4 * j * channels if j < past else new + 4 * j * ldx
        acc = fma(load_part_f32(source, n), load_part(weight + itemsize * j * channels, n), acc)
    store_part_f32(out, silu_lanes(acc), n)


@kernel_per_dtype
def conv_block(out: int, old: int, new: int, weight: int, past: int, width: int, channels: int, ldx: int) -> None:
    """Convolve BLOCK channels of one token: as ``conv_lanes``, four vectors beside each other.

    Shapes: as ``conv_lanes``, n = BLOCK.
    """
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for j in range(width):
        source = old + 4 * j * channels if j < past else new + 4 * j * ldx
        factor = weight + itemsize * j * channels
        a = fma(load_f32(source), load(factor), a)
        b = fma(load_f32(source + 4 * LANES), load(factor + itemsize * LANES), b)
        c = fma(load_f32(source + 8 * LANES), load(factor + itemsize * 2 * LANES), c)
        d = fma(load_f32(source + 12 * LANES), load(factor + itemsize * 3 * LANES), d)
    store_f32(out, silu_lanes(a))
    store_f32(out + 4 * LANES, silu_lanes(b))
    store_f32(out + 8 * LANES, silu_lanes(c))
    store_f32(out + 12 * LANES, silu_lanes(d))


@kernel_per_dtype
def conv_columns(
    out: int,
    x: int,
    weight: int,
    state: int,
    tokens: int,
    first: int,
    last: int,
    channels: int,
    width: int,
    ldo: int,
    ldx: int,
) -> None:
    """Convolve some channels of one sequence, whose state says what came before.

    Shapes: as ``causal_conv``, of one sequence; channels first <= c < last.
    """
    before = width - 1
    for t in range(tokens):
        to, old, new = out + 4 * t * ldo, state + 4 * t * channels, x + 4 * (t - before) * ldx
        past = max(0, before - t)
        whole = last - (last - first) % BLOCK
        for c in range(first, whole, BLOCK):
            conv_block(to + 4 * c, old + 4 * c, new + 4 * c, weight + itemsize * c, past, width, channels, ldx)
        for c in range(whole, last, LANES):
            n = min(LANES, last - c)
            conv_lanes(to + 4 * c, old + 4 * c, new + 4 * c, weight + itemsize * c, past, width, n, channels, ldx)


@kernel
def part_of(inputs: int, c: int) -> tuple[int, int]:
    """Return the part that a channel lies in, and the first channel of it.

    Shapes: inputs int64 (parts, 5), the fields above.
    """
    first = 0
    while c - first >= get_i64(inputs + CHANNELS):
        first += get_i64(inputs + CHANNELS)
        inputs += INPUT
    return inputs, first


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def causal_conv(
    out: int,
    inputs: int,
    weight: int,
    state: int,
    window: int,
    batch: int,
    channels: int,
    width: int,
    ldo: int,
    part: int,
    parts: int,
) -> None:
    """Convolve each channel of a batch of sequences with its past and apply silu; each part does some channels.

    out[t, c] = silu(sum_j weight[j, c] * input[t - (width - 1) + j, c]), where the input before a sequence's first
    token is the state in its source, or zero where its past is 0; then the state in its slot becomes the sequence's
    last width - 1 inputs. That of a tentative sequence stays as it is, and the window keeps its inputs from its row on.

    Shapes: inputs int64 (parts, 5), the fields above, of float32 (T, channels); out float32 (T, channels), token stride
    ldo; weight (width, channels) of the kernel's type; state float32 (slots, width - 1, channels); window float32
    (width - 1 + W, channels), of which the first width - 1 rows are zeros that stand for the inputs before a first
    token; batch the record of ``_slices``. Sums in float32 in the order of j. Each part does the sequences one after
    the other, so that a source may be the slot of one before. out must not be an input.
    """
    blocks = (channels + BLOCK - 1) // BLOCK
    begin, end = part * blocks // parts * BLOCK, min(channels, (part + 1) * blocks // parts * BLOCK)
    for s in range(sequences_of(batch)):
        start = start_of(batch, s)
        tokens = start_of(batch, s + 1) - start
        if tokens <= 0:
            continue
        before, row = width - 1, tentative_of(batch, s)
        own, kept = state + 4 * slot_of(batch, s) * before * channels, window + 4 * (before + row) * channels
        source = state + 4 * source_of(batch, s) * before * channels
        if past_of(batch, s) == 0:
            if row >= 0:
                own = window
            else:
                clear_columns(own, before, begin, end, channels)
        elif source != own:
            copy_columns(own, source, before, begin, end, channels, channels)
        to, first = out + 4 * start * ldo, begin
        while first < end:
            x, before_part = part_of(inputs, first)
            dim, ldx = get_i64(x + DIM), get_i64(x + TOKEN)
            head = (first - before_part) // dim
            last = min(end, first + CHUNK, before_part + (head + 1) * dim)
            at_x = get_i64(x + X) + 4 * (start * ldx + head * (get_i64(x + HEAD) - dim) - before_part)
            conv_columns(to, at_x, weight, own, tokens, first, last, channels, width, ldo, ldx)
            if row >= 0:
                copy_columns(kept, at_x, tokens, first, last, channels, ldx)
            else:
                keep_last(own, at_x, tokens, before, first, last, channels, ldx)
            first = last
