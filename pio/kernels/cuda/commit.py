"""Tokens that stand move the states of recurrent layers on, as ``pio.kernels.commit``: a thread takes a number.

The operations on each are those of ``gated_delta``, in the same order, hence the same bits.
"""

from __future__ import annotations

from pio.kernels._delta_record import COMMIT_DIM as DIM
from pio.kernels._delta_record import COMMIT_HEADS as HEADS
from pio.kernels._delta_record import COMMIT_KEY_HEADS as KEY_HEADS
from pio.kernels._delta_record import COMMIT_ROOM as ROOM
from pio.kernels._delta_record import LAYER_DECAY, LAYER_KEYS, LAYER_LEARNED, LAYER_STATE, LAYERS, SLICES
from pio.kernels.cuda._jit import cuda_kernel
from pio.kernels.cuda.causal_conv import input_of
from pio.kernels.cuda.ptx import (
    block_index,
    block_size,
    fma,
    get_f32,
    get_i64,
    grid_size,
    put_f32,
    single,
    thread_index,
)
from pio.kernels.sizes import SLICE as COLUMNS


@cuda_kernel
def commit_delta(
    state: int, learned: int, keys: int, decay: int, first: int, tokens: int, fresh: int, shape: int
) -> None:
    """Let the states of one sequence take in tokens of its window.

    for each layer, head h and token t, first <= t < first + tokens:
    S *= decay[h, t];  S += outer(keys[h', t], learned[h, t])
    where h' = h // (heads // key_heads), and S begins as zeros if fresh

    Shapes: state float32 (layers, heads, slices, dim, COLUMNS); learned float32 (layers, heads, slices, W, COLUMNS);
    keys float32 (layers, key_heads, W, dim), decay float32 (layers, heads, W), layers with gaps as shape says; shape
    int64 (10,), that of ``_delta_record``.
    """
    heads, slices, dim, room = (
        get_i64(shape + HEADS),
        get_i64(shape + SLICES),
        get_i64(shape + DIM),
        get_i64(shape + ROOM),
    )
    group, units = heads // get_i64(shape + KEY_HEADS), heads * slices
    n = block_index() * block_size() + thread_index()
    while n < get_i64(shape + LAYERS) * units * dim * COLUMNS:
        column, i, own = n % COLUMNS, n // COLUMNS % dim, n // COLUMNS // dim % units
        layer, h = n // COLUMNS // dim // units, own // slices
        at = state + 4 * (layer * get_i64(shape + LAYER_STATE) + (own * dim + i) * COLUMNS + column)
        lesson = learned + 4 * (layer * get_i64(shape + LAYER_LEARNED) + (own * room + first) * COLUMNS + column)
        k = keys + 4 * (layer * get_i64(shape + LAYER_KEYS) + (h // group * room + first) * dim + i)
        kept = decay + 4 * (layer * get_i64(shape + LAYER_DECAY) + h * room + first)
        acc = single(0.0) if fresh != 0 else get_f32(at)
        for t in range(tokens):
            acc = fma(get_f32(k + 4 * t * dim), get_f32(lesson + 4 * t * COLUMNS), acc * get_f32(kept + 4 * t))
        put_f32(at, acc)
        n += grid_size() * block_size()


@cuda_kernel
def commit_inputs(
    state: int, window: int, tokens: int, fresh: int, layers: int, before: int, channels: int, layer_state: int,
    layer_window: int,
) -> None:  # fmt: skip
    """Make the last inputs of a sequence's convolutions those up to its first tokens of the window.

    state[r] = input[tokens + r],  0 <= r < before, where input is the old state, zeros if fresh, and then the window

    Shapes: state float32 (layers, before, channels); window float32 (layers, tokens, channels); layers lie layer_state
    and layer_window elements apart.
    """
    n = block_index() * block_size() + thread_index()
    while n < layers * channels:
        layer, c = n // channels, n % channels
        own, x = state + 4 * (layer * layer_state + c), window + 4 * (layer * layer_window + c)
        for r in range(before):
            put_f32(own + 4 * r * channels, input_of(own, x, tokens + r, before, fresh, channels, channels))
        n += grid_size() * block_size()
