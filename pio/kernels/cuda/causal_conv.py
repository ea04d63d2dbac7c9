"""Convolution of each channel with its own past, as ``pio.kernels.causal_conv``: a thread takes a channel.

A sequence's first tokens and its state are one thread's business, whatever else there is to do: it reads what was and
leaves what comes. All other tokens find their past in the input, so that blocks take them CHUNK at a time.
"""

from __future__ import annotations

import math

from pio.kernels.cuda._jit import cuda_kernel_per_dtype, device_function, device_function_per_dtype
from pio.kernels.cuda._slices import in_order, past_of, sequences_of, slot_of, source_of, start_of, tentative_of
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    get_f32,
    get_i64,
    grid_size,
    itemsize,
    load,
    put_f32,
    quotient,
    single,
    thread_index,
)

CHUNK = 16  # tokens of a block; no less than the widest convolution has before its last
# A part of the inputs, as ``pio.kernels.causal_conv`` has it.
X, DIM, CHANNELS, TOKEN, HEAD = (8 * i for i in range(5))
INPUT = 40  # bytes


@device_function
def silu(x: float) -> float:
    """X / (1 + e^-x)."""
    return x / (single(1.0) + math.exp(-x))


@device_function
def input_of(old: int, x: int, i: int, before: int, fresh: int, channels: int, ldx: int) -> float:
    """Input i of a channel: what came before, zeros where that is fresh, and then x.

    Shapes: old float32 (before,), stride channels; x float32 (tokens,), stride ldx.
    """
    if i >= before:
        return get_f32(x + 4 * (i - before) * ldx)
    return single(0.0) if fresh != 0 else get_f32(old + 4 * i * channels)


@device_function
def channel_of(inputs: int, c: int) -> tuple[int, int]:
    """Return where the inputs of a channel begin, and how far those of tokens lie apart.

    Shapes: inputs int64 (parts, 5), the fields above.
    """
    while c >= get_i64(inputs + CHANNELS):
        c -= get_i64(inputs + CHANNELS)
        inputs += INPUT
    head = quotient(c, get_i64(inputs + DIM))
    at = head * get_i64(inputs + HEAD) + c - head * get_i64(inputs + DIM)
    return get_i64(inputs + X) + 4 * at, get_i64(inputs + TOKEN)


@device_function_per_dtype
def conv_tokens(
    out: int, x: int, weight: int, old: int, first: int, last: int, fresh: int, channels: int, width: int, ldo: int,
    ldx: int,
) -> None:  # fmt: skip
    """Convolve one channel of some tokens.

    out[t] = silu(sum_j weight[j] * input[t + j]), summed in the order of j, first <= t < last

    Shapes: as in ``causal_conv``, of one sequence and channel.
    """
    for t in range(first, last):
        acc = single(0.0)
        for j in range(width):
            value = input_of(old, x, t + j, width - 1, fresh, channels, ldx)
            acc = fma(value, load(weight + itemsize * j * channels), acc)
        put_f32(out + 4 * t * ldo, silu(acc))


@device_function_per_dtype
def conv_first(
    out: int, x: int, weight: int, state: int, window: int, batch: int, s: int, c: int, channels: int, width: int,
    ldo: int, ldx: int,
) -> None:  # fmt: skip
    """Convolve one channel of a sequence's first tokens, and leave its state.

    Shapes: as in ``causal_conv``; x float32 (T,), of the channel, stride ldx.
    """
    start, before, row = start_of(batch, s), width - 1, tentative_of(batch, s)
    tokens, fresh = start_of(batch, s + 1) - start, int(past_of(batch, s) == 0)
    if tokens <= 0:
        return
    own = state + 4 * (slot_of(batch, s) * before * channels + c)
    old = state + 4 * (source_of(batch, s) * before * channels + c)
    at_x = x + 4 * start * ldx
    to, by = out + 4 * (start * ldo + c), weight + itemsize * c
    conv_tokens(to, at_x, by, old, 0, min(tokens, CHUNK), fresh, channels, width, ldo, ldx)
    if row < 0:
        for r in range(before):
            put_f32(own + 4 * r * channels, input_of(old, at_x, tokens + r, before, fresh, channels, ldx))
        return
    if fresh == 0 and own != old:
        for r in range(before):
            put_f32(own + 4 * r * channels, get_f32(old + 4 * r * channels))
    for t in range(tokens):
        put_f32(window + 4 * ((before + row + t) * channels + c), get_f32(at_x + 4 * t * ldx))


@device_function_per_dtype
def conv_rest(
    out: int, x: int, weight: int, batch: int, s: int, chunk: int, c: int, channels: int, width: int, ldo: int, ldx: int
) -> None:
    """Convolve one channel of a chunk of a sequence's tokens, behind the first chunk.

    Shapes: as in ``causal_conv``; x float32 (T,), of the channel, stride ldx.
    """
    start, tokens = start_of(batch, s), start_of(batch, s + 1) - start_of(batch, s)
    first = chunk * CHUNK
    at_x, to = x + 4 * start * ldx, out + 4 * (start * ldo + c)
    conv_tokens(to, at_x, weight + itemsize * c, 0, first, min(tokens, first + CHUNK), 1, channels, width, ldo, ldx)


@cuda_kernel_per_dtype(block=128, blocks=5, shared=16)
def causal_conv(
    out: int, inputs: int, weight: int, state: int, window: int, batch: int, channels: int, width: int, ldo: int
) -> None:
    """Convolve each channel of a batch of sequences with its past and apply silu.

    out[t, c] = silu(sum_j weight[j, c] * input[t - (width - 1) + j, c]), where the input before a sequence's first
    token is the state in its source, or zero where its past is 0; then the state in its slot becomes the sequence's
    last width - 1 inputs. That of a tentative sequence stays as it is, and the window keeps its inputs from its row on.

    Shapes: inputs int64 (parts, 5), the fields above, of float32 (T, channels); out float32 (T, channels), token stride
    ldo; weight (width, channels) of the kernel's type, width at most CHUNK + 1; state float32 (slots, width - 1,
    channels); window float32 (width - 1 + W, channels); batch the record of ``_slices``. Sums in float32 in the order
    of j. Where a source is another sequence's slot, a thread does the sequences one after the other. out must not be an
    input.
    """
    groups, sequences = (channels + block_size() - 1) // block_size(), sequences_of(batch)
    together = sequences if in_order(batch) else 1
    item, base = block_index(), 0
    while item < groups * (sequences // together if sequences > 0 else 0):
        c = item % groups * block_size() + thread_index()
        if c < channels:
            x, ldx = channel_of(inputs, c)
            for s in range(item // groups * together, item // groups * together + together):
                conv_first(out, x, weight, state, window, batch, s, c, channels, width, ldo, ldx)
        item += grid_size()
    if sequences > 0:
        base = groups * (sequences // together)
    for s in range(sequences):
        chunks = (start_of(batch, s + 1) - start_of(batch, s) + CHUNK - 1) // CHUNK
        items = groups * max(0, chunks - 1)
        while item < base + items:
            c = (item - base) % groups * block_size() + thread_index()
            if c < channels:
                x, ldx = channel_of(inputs, c)
                conv_rest(out, x, weight, batch, s, 1 + (item - base) // groups, c, channels, width, ldo, ldx)
            item += grid_size()
        base += items
