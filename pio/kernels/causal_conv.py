"""Convolution of each channel with its own past, a few tokens wide, whose state is the last tokens of a sequence."""

from __future__ import annotations

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.activation import silu_lanes
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    Vec,
    fma,
    get_i32,
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


@kernel
def input_row(state: int, x: int, i: int, before: int, channels: int, ldx: int) -> int:
    """Return where a sequence's input lies: its last ``before`` tokens are in the state, the new ones in x.

    Shapes: state float32 (before, channels); x float32 (tokens, channels), token stride ldx; 0 <= i < before + tokens.
    """
    return state + 4 * i * channels if i < before else x + 4 * (i - before) * ldx


@kernel
def keep_last(state: int, x: int, tokens: int, before: int, first: int, last: int, channels: int, ldx: int) -> None:
    """Make the last inputs of a sequence its state.

    state[r] = input[tokens + r],  0 <= r < before, where input is the old state and then x

    Shapes: as ``input_row``, of which this does the channels first <= c < last.
    """
    for r in range(before):
        source = input_row(state, x, tokens + r, before, channels, ldx)
        for c in range(first, last, LANES):
            at = 4 * (r * channels + c)
            if last - c >= LANES:
                store_f32(state + at, load_f32(source + 4 * c))
            else:
                store_part_f32(state + at, load_part_f32(source + 4 * c, last - c), last - c)


@kernel_per_dtype
def conv_lanes(state: int, x: int, weight: int, t: int, width: int, c: int, n: int, channels: int, ldx: int) -> Vec:
    """Return silu(sum_j weight[j] * input[t + j]) for n channels from c on, summed in the order of j.

    Shapes: as ``input_row`` with before = width - 1; weight (width, channels) of the kernel's type; n <= 16.
    """
    acc = splat(0.0)
    for j in range(width):
        source = input_row(state, x, t + j, width - 1, channels, ldx) + 4 * c
        factor = weight + itemsize * (j * channels + c)
        if n == LANES:
            acc = fma(load_f32(source), load(factor), acc)
        else:
            acc = fma(load_part_f32(source, n), load_part(factor, n), acc)
    return silu_lanes(acc)


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def causal_conv(
    out: int,
    x: int,
    weight: int,
    state: int,
    starts: int,
    past: int,
    slots: int,
    sequences: int,
    channels: int,
    width: int,
    ldo: int,
    ldx: int,
    part: int,
    parts: int,
) -> None:
    """Convolve each channel of a batch of sequences with its past and apply silu; each part does some channels.

    out[t, c] = silu(sum_j weight[j, c] * input[t - (width - 1) + j, c]), where the input before a sequence's first
    token is its state, or zero where its past is 0; then the state becomes the sequence's last width - 1 inputs

    Shapes: x, out float32 (T, channels), token strides ldx, ldo; weight (width, channels) of the kernel's type; state
    float32 (slots, width - 1, channels); starts int32 (S + 1,); past, slots int32 (S,), slots pairwise different.
    Sums in float32 in the order of j. out must not be x.
    """
    blocks = (channels + LANES - 1) // LANES
    begin, end = part * blocks // parts * LANES, min(channels, (part + 1) * blocks // parts * LANES)
    for s in range(sequences):
        start = get_i32(starts + 4 * s)
        tokens = get_i32(starts + 4 * s + 4) - start
        if tokens <= 0:
            continue
        own, at_x = state + 4 * get_i32(slots + 4 * s) * (width - 1) * channels, x + 4 * start * ldx
        if get_i32(past + 4 * s) == 0:
            clear_columns(own, width - 1, begin, end, channels)
        for t in range(tokens):
            to = out + 4 * (start + t) * ldo
            for c in range(begin, end, LANES):
                n = min(LANES, end - c)
                value = conv_lanes(own, at_x, weight, t, width, c, n, channels, ldx)
                if n == LANES:
                    store_f32(to + 4 * c, value)
                else:
                    store_part_f32(to + 4 * c, value, n)
        keep_last(own, at_x, tokens, width - 1, begin, end, channels, ldx)


@kernel
def clear_columns(x: int, rows: int, first: int, last: int, columns: int) -> None:
    """Set some columns of all rows to zero.

    x[r, c] = 0,  first <= c < last

    Shapes: x float32 (rows, columns).
    """
    for r in range(rows):
        for c in range(first, last, LANES):
            if last - c >= LANES:
                store_f32(x + 4 * (r * columns + c), splat(0.0))
            else:
                store_part_f32(x + 4 * (r * columns + c), splat(0.0), last - c)
