"""The gated delta rule: attention through a state of fixed size, which forgets by a gate and learns what it lacked.

The columns of a state never meet, so it is kept in slices of COLUMNS of them: slice after slice of a head, each
(dim, COLUMNS) in one piece, zeros behind the last column. A slice fits the first-level cache, and stays there while
the tokens of a sequence walk over it one by one. A decode is a walk of one token: one form, hence the same bits,
however a prompt was cut, whatever else is in the batch and however many threads run.

Tokens that may not stand, such as drafts, are walked on a copy of the slice, and what ``commit`` needs to walk the
first of them again is kept in a window: what each token made the state learn, its key and its decay.
"""

from __future__ import annotations

import math

from pio.kernels._delta_record import (
    BETA,
    DECAY,
    DESKS,
    DIM,
    EPS,
    HEAD_K,
    HEAD_Q,
    HEAD_V,
    HEADS,
    KEY_HEADS,
    KEYS,
    LEARNED,
    ROOM,
    TOKEN_A,
    TOKEN_B,
    TOKEN_K,
    TOKEN_OUT,
    TOKEN_Q,
    TOKEN_V,
    VALUE_DIM,
)
from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels._rows import fill_f32
from pio.kernels._slices import past_of, sequences_of, slot_of, source_of, start_of, tentative_of
from pio.kernels.activation import sigmoid_lanes
from pio.kernels.exponential import exp
from pio.kernels.norm import sum_squares
from pio.kernels.parallel import parallel_kernel, parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    Vec,
    fma,
    get_f32,
    get_f64,
    get_i64,
    itemsize,
    load,
    load_f32,
    load_part,
    load_part_f32,
    maximum,
    put_f32,
    splat,
    store_f32,
    store_part_f32,
)
from pio.kernels.sizes import SLICE as COLUMNS  # two accumulators each for what is recalled and for what is read
from pio.kernels.sizes import SLICE_PARTS
from pio.kernels.tiles import prefetch


@kernel
def log1p_lanes(y: Vec) -> Vec:
    """Return log(1 + y) for 0 <= y <= 1, to 2e-7 relative: 2 (s + s^3 / 3 + ... + s^13 / 13), s = y / (2 + y).

    Shapes: sixteen lanes.
    """
    s = y / (splat(2.0) + y)
    square = s * s
    p = splat(2 / 13)
    p = fma(p, square, splat(2 / 11))
    p = fma(p, square, splat(2 / 9))
    p = fma(p, square, splat(2 / 7))
    p = fma(p, square, splat(2 / 5))
    p = fma(p, square, splat(2 / 3))
    p = fma(p, square, splat(2.0))
    return s * p


@kernel
def decay_lanes(a: Vec, a_log: Vec, dt_bias: Vec) -> Vec:
    """Return exp(-exp(a_log) * log(1 + exp(a + dt_bias))).

    Without overflow: log(1 + e^x) = max(x, 0) + log(1 + e^-|x|).

    Shapes: sixteen lanes.
    """
    zero = splat(0.0)
    x = a + dt_bias
    softplus = maximum(x, zero) + log1p_lanes(exp(zero - maximum(x, zero - x)))
    return exp(zero - exp(a_log) * softplus)


@kernel_per_dtype
def delta_gate_rows(
    beta: int,
    decay: int,
    b: int,
    a: int,
    a_log: int,
    dt_bias: int,
    first: int,
    last: int,
    heads: int,
    ldb: int,
    lda: int,
) -> None:
    """Compute how much each head learns from a token and how much it keeps of what it knew.

    beta[t, h] = 1 / (1 + e^-b[t, h]);  decay[t, h] = exp(-exp(a_log[h]) * log(1 + exp(a[t, h] + dt_bias[h])))

    Shapes: beta, decay float32 (T, heads), first <= t < last; b, a float32 (T, heads), token strides ldb, lda; a_log,
    dt_bias (heads,) of the kernel's type.
    """
    for t in range(first, last):
        for h in range(0, heads, LANES):
            at_b, at_a, to, n = b + 4 * (t * ldb + h), a + 4 * (t * lda + h), 4 * (t * heads + h), heads - h
            rate, shift = a_log + itemsize * h, dt_bias + itemsize * h
            if n >= LANES:
                store_f32(beta + to, sigmoid_lanes(load_f32(at_b)))
                store_f32(decay + to, decay_lanes(load_f32(at_a), load(rate), load(shift)))
            else:
                store_part_f32(beta + to, sigmoid_lanes(load_part_f32(at_b, n)), n)
                kept = decay_lanes(load_part_f32(at_a, n), load_part(rate, n), load_part(shift, n))
                store_part_f32(decay + to, kept, n)


@parallel_kernel_per_dtype
def delta_gates(
    beta: int,
    decay: int,
    b: int,
    a: int,
    a_log: int,
    dt_bias: int,
    tokens: int,
    heads: int,
    ldb: int,
    lda: int,
    part: int,
    parts: int,
) -> None:
    """Compute the gates of the delta rule, tokens split over threads.

    Shapes: as ``delta_gate_rows``.
    """
    first, last = part * tokens // parts, (part + 1) * tokens // parts
    delta_gate_rows(beta, decay, b, a, a_log, dt_bias, first, last, heads, ldb, lda)


@kernel
def head_scales(scales: int, q: int, k: int, first: int, last: int, shape: int) -> None:
    """Compute the factors that bring queries and keys to length one, and queries by 1 / sqrt(dim) below it.

    scales[t, h, 0] = 1 / sqrt((sum(q[t, h] ** 2) + eps) * dim);  scales[t, h, 1] = 1 / sqrt(sum(k[t, h] ** 2) + eps)

    Shapes: scales float32 (T, key_heads, 2), first <= t < last; q, k float32 (T, key_heads, dim), with gaps as shape
    says. Sums in float32.
    """
    heads, dim, eps = get_i64(shape + KEY_HEADS), get_i64(shape + DIM), get_f64(shape + EPS)
    for r in range(first * heads, last * heads):
        t, h = r // heads, r % heads
        at_q = q + 4 * (t * get_i64(shape + TOKEN_Q) + h * get_i64(shape + HEAD_Q))
        put_f32(scales + 8 * r, 1.0 / math.sqrt((sum_squares(at_q, dim) + eps) * dim))
        at_k = k + 4 * (t * get_i64(shape + TOKEN_K) + h * get_i64(shape + HEAD_K))
        put_f32(scales + 8 * r + 4, 1.0 / math.sqrt(sum_squares(at_k, dim) + eps))


@parallel_kernel_per_dtype
def delta_factors(
    scales: int, q: int, k: int, decay: int, b: int, a: int, a_log: int, dt_bias: int, tokens: int, shape: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """Compute the numbers by which the delta rule multiplies, tokens split over threads: scales, and gates if wanted.

    As ``head_scales`` does, and where decay is not 0 as ``delta_gate_rows`` does

    Shapes: as those have them, beta behind decay as shape says.
    """
    first, last = part * tokens // parts, (part + 1) * tokens // parts
    head_scales(scales, q, k, first, last, shape)
    if decay != 0:
        heads, ldb, lda = get_i64(shape + HEADS), get_i64(shape + TOKEN_B), get_i64(shape + TOKEN_A)
        beta = decay + get_i64(shape + BETA)
        delta_gate_rows(beta, decay, b, a, a_log, dt_bias, first, last, heads, ldb, lda)


@kernel
def walk_slice(
    out: int, q: int, k: int, v: int, decay: int, scales: int, state: int, desk: int, learned: int, tokens: int,
    columns: int, shape: int,
) -> None:  # fmt: skip
    """Walk the tokens of a sequence over a slice of the state of one head.

    for each t: S *= decay[t];  S += outer(k[t], beta[t] * (v[t] - k[t] @ S));  out[t] = q[t] @ S

    where q and k are scaled: the sums run over them as they are, and take the factor afterwards. What S becomes lies at
    desk, which may be state. With learned, learned[t] is what k[t] as it is meets: S += outer(k[t], learned[t]).

    Shapes: q, k float32 (tokens, dim), v, out float32 (tokens, min(columns, COLUMNS)), strides as shape says; decay,
    beta float32 (tokens,), stride heads; scales float32 (tokens, 2), stride 2 key_heads; state, desk float32
    (dim, COLUMNS); the slice behind state is asked for meanwhile; learned 0, or float32 (tokens, COLUMNS). Sums in
    float32 in the order of dim: what the next token recalls is summed while S passes by for this one. out may be v.
    """
    heads, key_heads, dim = get_i64(shape + HEADS), get_i64(shape + KEY_HEADS), get_i64(shape + DIM)
    ldq, ldk = get_i64(shape + TOKEN_Q), get_i64(shape + TOKEN_K)
    ldv, ldo = get_i64(shape + TOKEN_V), get_i64(shape + TOKEN_OUT)
    beta, ahead = decay + get_i64(shape + BETA), state - desk + 4 * COLUMNS * dim
    zero = splat(0.0)
    low, high = zero, zero  # k[t] @ S, before S decays
    for i in range(dim):
        by_k, row = splat(get_f32(k + 4 * i)), state + 4 * COLUMNS * i
        one, two = load_f32(row), load_f32(row + 4 * LANES)
        low, high = fma(by_k, one, low), fma(by_k, two, high)
        if desk != state:
            store_f32(desk + 4 * COLUMNS * i, one)
            store_f32(desk + 4 * COLUMNS * i + 4 * LANES, two)
    for t in range(tokens):
        at_q, at_k, at_v, to = q + 4 * t * ldq, k + 4 * t * ldk, v + 4 * t * ldv, out + 4 * t * ldo
        next_k = at_k + 4 * ldk if t + 1 < tokens else at_k
        kept, scale_q = get_f32(decay + 4 * t * heads), get_f32(scales + 8 * t * key_heads)
        scale_k = get_f32(scales + 8 * t * key_heads + 4)
        shrink, lack, learn = splat(kept), splat(-kept * scale_k), splat(get_f32(beta + 4 * t * heads) * scale_k)
        new_low = fma(low, lack, load_up_to(at_v, columns)) * learn
        new_high = fma(high, lack, load_up_to(at_v + 4 * LANES, columns - LANES)) * learn
        if learned != 0:
            store_f32(learned + 4 * t * COLUMNS, new_low)
            store_f32(learned + 4 * t * COLUMNS + 4 * LANES, new_high)
        read_low, read_high = zero, zero
        low, high = zero, zero
        for i in range(dim):
            row, by_k = desk + 4 * COLUMNS * i, splat(get_f32(at_k + 4 * i))
            one = fma(by_k, new_low, load_f32(row) * shrink)
            two = fma(by_k, new_high, load_f32(row + 4 * LANES) * shrink)
            store_f32(row, one)
            store_f32(row + 4 * LANES, two)
            prefetch(row + ahead, 4 * COLUMNS)
            by_q, by_next = splat(get_f32(at_q + 4 * i)), splat(get_f32(next_k + 4 * i))
            read_low, read_high = fma(by_q, one, read_low), fma(by_q, two, read_high)
            low, high = fma(by_next, one, low), fma(by_next, two, high)
        store_up_to(to, read_low * splat(scale_q), columns)
        store_up_to(to + 4 * LANES, read_high * splat(scale_q), columns - LANES)


@kernel
def keep_tokens(k: int, decay: int, row: int, tokens: int, h: int, shape: int) -> None:
    """Keep of a head what ``commit`` needs besides what its state learned: decays, and the keys of a key head once.

    kept_decay[h, row + t] = decay[t];  kept_k[h // group, row + t] = k[t] where h is the first head of its group

    Shapes: k float32 (tokens, dim), decay float32 (tokens,), strides as shape says; kept_k float32 (key_heads, W, dim),
    kept_decay float32 (heads, W), at the addresses in shape.
    """
    heads, key_heads, dim = get_i64(shape + HEADS), get_i64(shape + KEY_HEADS), get_i64(shape + DIM)
    group, ldk, room = heads // key_heads, get_i64(shape + TOKEN_K), get_i64(shape + ROOM)
    for t in range(tokens):
        put_f32(get_i64(shape + DECAY) + 4 * (h * room + row + t), get_f32(decay + 4 * t * heads))
        if h % group == 0:
            to = get_i64(shape + KEYS) + 4 * (h // group * room + row + t) * dim
            for i in range(0, dim, LANES):
                store_up_to(to + 4 * i, load_up_to(k + 4 * (t * ldk + i), dim - i), dim - i)


@parallel_kernel(parts_per_thread=SLICE_PARTS)
def gated_delta(
    out: int,
    q: int,
    k: int,
    v: int,
    decay: int,
    scales: int,
    state: int,
    batch: int,
    shape: int,
    part: int,
    parts: int,
) -> None:
    """Apply the gated delta rule to a batch of sequences; each part does some slices of every sequence's state.

    for each token t of a sequence and each head h, with S = state[slots[s], h], which begins as state[sources[s], h]
    (as zero where past[s] is 0):
    S *= decay[t, h];  S += outer(k[t, h'], beta[t, h] * (v[t, h] - k[t, h'] @ S));  out[t, h] = q[t, h'] @ S
    where h' = h // (heads // key_heads), and q and k are scaled by ``delta_factors``. The state of a tentative sequence
    stays as it is: its slices are walked on a copy, and the window keeps what ``commit`` needs from its row on.

    Shapes: q, k float32 (T, key_heads, dim), v, out float32 (T, heads, value_dim), with gaps as shape says; decay, beta
    float32 (T, heads); scales float32 (T, key_heads, 2); state float32 (slots, heads, slices, dim, COLUMNS), where
    slices are as many as hold value_dim columns; batch the record of ``_slices``, shape that of ``_delta_record``,
    with learned float32 (heads, slices, W, COLUMNS), keys float32 (key_heads, W, dim), kept decay float32 (heads, W)
    and desks float32 (parts, dim, COLUMNS). Sums in float32 in the order of dim. Each part does the sequences one after
    the other, so that a source may be the slot of one before. out may be v.
    """
    heads, key_heads = get_i64(shape + HEADS), get_i64(shape + KEY_HEADS)
    dim, value_dim = get_i64(shape + DIM), get_i64(shape + VALUE_DIM)
    slices = (value_dim + COLUMNS - 1) // COLUMNS
    units, group, size = heads * slices, heads // key_heads, 4 * COLUMNS * dim
    for s in range(sequences_of(batch)):
        start = start_of(batch, s)
        tokens = start_of(batch, s + 1) - start
        if tokens <= 0:
            continue
        own, row = state + size * units * slot_of(batch, s), tentative_of(batch, s)
        source = state + size * units * source_of(batch, s)
        for unit in range(part * units // parts, (part + 1) * units // parts):
            h, column = unit // slices, unit % slices * COLUMNS
            at, desk, learned = source + size * unit, own + size * unit, 0
            if row >= 0:
                desk = get_i64(shape + DESKS) + size * part
                learned = get_i64(shape + LEARNED) + 4 * COLUMNS * (unit * get_i64(shape + ROOM) + row)
            if past_of(batch, s) == 0:
                at = desk
                fill_f32(at, COLUMNS * dim, 0.0)
            at_q = q + 4 * (start * get_i64(shape + TOKEN_Q) + h // group * get_i64(shape + HEAD_Q))
            at_k = k + 4 * (start * get_i64(shape + TOKEN_K) + h // group * get_i64(shape + HEAD_K))
            at_v = v + 4 * (start * get_i64(shape + TOKEN_V) + h * get_i64(shape + HEAD_V) + column)
            to = out + 4 * (start * get_i64(shape + TOKEN_OUT) + h * value_dim + column)
            gate, factors = 4 * (start * heads + h), scales + 8 * (start * key_heads + h // group)
            if row >= 0 and column == 0:
                keep_tokens(at_k, decay + gate, row, tokens, h, shape)
            left = value_dim - column
            walk_slice(to, at_q, at_k, at_v, decay + gate, factors, at, desk, learned, tokens, left, shape)
