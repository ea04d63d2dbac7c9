"""Tokens that stand move the states of recurrent layers on, in all layers at once, by what was kept of them.

What a token made a state learn is known already, so nothing is recalled and nothing is read: each row of a state is
taken into registers once, meets all tokens there, and is written once. The operations on each element are those of
``gated_delta``, in the same order, hence the same bits.
"""

from __future__ import annotations

from pio.kernels._delta_record import COMMIT_DIM as DIM
from pio.kernels._delta_record import COMMIT_HEADS as HEADS
from pio.kernels._delta_record import COMMIT_KEY_HEADS as KEY_HEADS
from pio.kernels._delta_record import COMMIT_ROOM as ROOM
from pio.kernels._delta_record import LAYER_DECAY, LAYER_KEYS, LAYER_LEARNED, LAYER_STATE, LAYERS, SLICES
from pio.kernels._jit import kernel
from pio.kernels.causal_conv import clear_columns, keep_last
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import LANES, Vec, fma, get_f32, get_i64, load_f32, splat, store_f32
from pio.kernels.sizes import SLICE as COLUMNS
from pio.kernels.tiles import prefetch

ROWS = 4  # of a state beside each other: two accumulators each, which hide how long a product takes
PARTS = 4  # pieces for each thread
BLOCK = 4 * LANES  # channels that a part takes together


@kernel
def learn(acc: Vec, k: int, learned: int, decay: int, tokens: int, dim: int) -> Vec:
    """Return what sixteen elements of a row of a state become.

    for each t: acc = acc * decay[t] + k[t] * learned[t]

    Shapes: k float32 (tokens,), stride dim; learned float32 (tokens, LANES), stride COLUMNS; decay float32 (tokens,).
    """
    for t in range(tokens):
        kept = acc * splat(get_f32(decay + 4 * t))
        acc = fma(splat(get_f32(k + 4 * t * dim)), load_f32(learned + 4 * t * COLUMNS), kept)
    return acc


@kernel
def commit_rows(row: int, k: int, learned: int, decay: int, tokens: int, dim: int) -> None:
    """Move ROWS rows of a slice of a state on, as ``learn`` does with one vector.

    for each t: S[i] = S[i] * decay[t] + k[t, i] * learned[t],  0 <= i < ROWS

    Shapes: S float32 (ROWS, COLUMNS) at row, in place; k float32 (tokens, ROWS), stride dim; learned float32
    (tokens, COLUMNS); decay float32 (tokens,).
    """
    a, b = load_f32(row), load_f32(row + 4 * LANES)
    c, d = load_f32(row + 8 * LANES), load_f32(row + 12 * LANES)
    e, f = load_f32(row + 16 * LANES), load_f32(row + 20 * LANES)
    g, h = load_f32(row + 24 * LANES), load_f32(row + 28 * LANES)
    for t in range(tokens):
        shrink, at, lesson = splat(get_f32(decay + 4 * t)), k + 4 * t * dim, learned + 4 * t * COLUMNS
        low, high = load_f32(lesson), load_f32(lesson + 4 * LANES)
        one, two, three, four = (
            splat(get_f32(at)),
            splat(get_f32(at + 4)),
            splat(get_f32(at + 8)),
            splat(get_f32(at + 12)),
        )
        a, b = fma(one, low, a * shrink), fma(one, high, b * shrink)
        c, d = fma(two, low, c * shrink), fma(two, high, d * shrink)
        e, f = fma(three, low, e * shrink), fma(three, high, f * shrink)
        g, h = fma(four, low, g * shrink), fma(four, high, h * shrink)
    store_f32(row, a)
    store_f32(row + 4 * LANES, b)
    store_f32(row + 8 * LANES, c)
    store_f32(row + 12 * LANES, d)
    store_f32(row + 16 * LANES, e)
    store_f32(row + 20 * LANES, f)
    store_f32(row + 24 * LANES, g)
    store_f32(row + 28 * LANES, h)


@parallel_kernel(parts_per_thread=PARTS)
def commit_delta(
    state: int,
    learned: int,
    keys: int,
    decay: int,
    first: int,
    tokens: int,
    fresh: int,
    shape: int,
    part: int,
    parts: int,
) -> None:
    """Let the states of one sequence take in tokens of its window; each part does some slices of some layers.

    for each layer, head h and token t, first <= t < first + tokens:
    S *= decay[h, t];  S += outer(keys[h', t], learned[h, t])
    where h' = h // (heads // key_heads), and S begins as zeros if fresh

    Shapes: state float32 (layers, heads, slices, dim, COLUMNS); learned float32 (layers, heads, slices, W, COLUMNS);
    keys float32 (layers, key_heads, W, dim), decay float32 (layers, heads, W), layers with gaps as shape says; shape
    int64 (10,), that of ``_delta_record``.
    """
    heads, key_heads, slices = get_i64(shape + HEADS), get_i64(shape + KEY_HEADS), get_i64(shape + SLICES)
    dim, units = get_i64(shape + DIM), heads * slices
    group, room, work = heads // key_heads, get_i64(shape + ROOM), get_i64(shape + LAYERS) * units
    for unit in range(part * work // parts, (part + 1) * work // parts):
        layer, own = unit // units, unit % units
        h, at = own // slices, state + 4 * (layer * get_i64(shape + LAYER_STATE) + own * dim * COLUMNS)
        at_learned = learned + 4 * (layer * get_i64(shape + LAYER_LEARNED) + (own * room + first) * COLUMNS)
        at_k = keys + 4 * (layer * get_i64(shape + LAYER_KEYS) + (h // group * room + first) * dim)
        at_decay = decay + 4 * (layer * get_i64(shape + LAYER_DECAY) + h * room + first)
        if fresh != 0:
            for i in range(2 * dim):
                store_f32(at + 4 * LANES * i, splat(0.0))
        whole = dim - dim % ROWS
        for i in range(0, whole, ROWS):
            row = at + 4 * COLUMNS * i
            commit_rows(row, at_k + 4 * i, at_learned, at_decay, tokens, dim)
            prefetch(row + 4 * COLUMNS * dim, 4 * COLUMNS * ROWS)
        for i in range(2 * whole, 2 * dim):
            to, k, by = at + 4 * LANES * i, at_k + i // 2 * 4, at_learned + 4 * LANES * (i % 2)
            store_f32(to, learn(load_f32(to), k, by, at_decay, tokens, dim))


@parallel_kernel(parts_per_thread=PARTS)
def commit_inputs(
    state: int,
    window: int,
    tokens: int,
    fresh: int,
    layers: int,
    before: int,
    channels: int,
    layer_state: int,
    layer_window: int,
    part: int,
    parts: int,
) -> None:
    """Make the last inputs of a sequence's convolutions those up to its first tokens of the window.

    state[r] = input[tokens + r],  0 <= r < before, where input is the old state, zeros if fresh, and then the window

    Shapes: state float32 (layers, before, channels); window float32 (layers, tokens, channels); layers lie layer_state
    and layer_window elements apart. Each part does some channels of some layers.
    """
    blocks = (channels + BLOCK - 1) // BLOCK
    for unit in range(part * layers * blocks // parts, (part + 1) * layers * blocks // parts):
        layer, first = unit // blocks, unit % blocks * BLOCK
        last, own = min(channels, first + BLOCK), state + 4 * layer * layer_state
        if fresh != 0:
            clear_columns(own, before, first, last, channels)
        keep_last(own, window + 4 * layer * layer_window, tokens, before, first, last, channels, channels)
