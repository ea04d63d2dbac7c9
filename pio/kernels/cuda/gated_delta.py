"""The gated delta rule, as ``pio.kernels.gated_delta``: a block walks the tokens over a slice of the state of one head.

The slice lies in registers meanwhile: of each warp so many rows, of each lane a column. What a token reads, and what
the next one recalls, is summed by each warp over its rows, then over the warps in order: one order of sums, whatever
came before, so the bits do not depend on how a prompt was cut. A decode is a walk of one token.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import math

from pio.kernels._delta_record import (
    BETA,
    DECAY,
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
    TOKEN_K,
    TOKEN_OUT,
    TOKEN_Q,
    TOKEN_V,
    VALUE_DIM,
)
from pio.kernels.cuda._jit import cuda_kernel, cuda_kernel_per_dtype, device_function, inlined_device_function
from pio.kernels.cuda._reduce import warp_sum
from pio.kernels.cuda._slices import in_order, past_of, sequences_of, slot_of, source_of, start_of, tentative_of
from pio.kernels.cuda._state_rows import dot_rows, learn_rows, load_state_rows, store_state_rows
from pio.kernels.cuda.ptx import (
    WARP,
    block_index,
    block_size,
    fma,
    get_f32,
    get_f64,
    get_i64,
    get_shared_f32,
    grid_size,
    itemsize,
    load,
    maximum,
    put_f32,
    put_shared_f32,
    shared_memory,
    single,
    syncthreads,
    thread_index,
)
from pio.kernels.cuda.ptx.score_tiles import no_sums
from pio.kernels.sizes import SLICE as COLUMNS

WARPS = 8
THREADS = WARPS * WARP
ROWS = 16  # of a state that a warp has, and as many again WARPS * ROWS rows further on
DIMS = 2 * WARPS * ROWS  # widest key

# Shared memory in bytes: queries of two tokens, keys of three, then for each of two tokens what each warp has read and
# recalled of each column.
QUERIES, KEY_ROWS, READ = 0, 2 * 4 * DIMS, 5 * 4 * DIMS
PASS = 4 * WARPS * COLUMNS
RECALLED = READ + 2 * PASS
SHARED = RECALLED + 2 * PASS


@cuda_kernel_per_dtype
def delta_gates(
    beta: int, decay: int, b: int, a: int, a_log: int, dt_bias: int, tokens: int, heads: int, ldb: int, lda: int
) -> None:
    """Compute how much each head learns from a token and how much it keeps of what it knew.

    beta[t, h] = 1 / (1 + e^-b[t, h]);  decay[t, h] = exp(-exp(a_log[h]) * log(1 + exp(a[t, h] + dt_bias[h])))

    Shapes: beta, decay float32 (T, heads); b, a float32 (T, heads), token strides ldb, lda; a_log, dt_bias (heads,) of
    the kernel's type.
    """
    n = block_index() * block_size() + thread_index()
    while n < tokens * heads:
        t, h = n // heads, n % heads
        x = get_f32(a + 4 * (t * lda + h)) + load(dt_bias + itemsize * h)
        softplus = maximum(x, single(0.0)) + math.log1p(math.exp(-abs(x)))
        put_f32(beta + 4 * n, single(1.0) / (single(1.0) + math.exp(-get_f32(b + 4 * (t * ldb + h)))))
        put_f32(decay + 4 * n, math.exp(-math.exp(load(a_log + itemsize * h)) * softplus))
        n += grid_size() * block_size()


@device_function
def sum_squares(x: int, n: int) -> float:
    """Sum the squares of a row over the lanes of a warp.

    Shapes: x float32 (n,). Each lane sums every 32nd number, in order.
    """
    total, i = single(0.0), thread_index() % WARP
    while i < n:
        value = get_f32(x + 4 * i)
        total = fma(value, value, total)
        i += WARP
    return warp_sum(total)


@cuda_kernel
def head_scales(scales: int, q: int, k: int, tokens: int, shape: int) -> None:
    """Compute the factors that bring queries and keys to length one, and queries by 1 / sqrt(dim) below it.

    scales[t, h, 0] = 1 / sqrt((sum(q[t, h] ** 2) + eps) * dim);  scales[t, h, 1] = 1 / sqrt(sum(k[t, h] ** 2) + eps)

    Shapes: scales float32 (T, key_heads, 2); q, k float32 (T, key_heads, dim), with gaps as shape says. Sums in
    float32. A warp takes a row.
    """
    heads, dim, eps = get_i64(shape + KEY_HEADS), get_i64(shape + DIM), get_f64(shape + EPS)
    warps = block_size() // WARP
    r = block_index() * warps + thread_index() // WARP
    while r < tokens * heads:
        t, h = r // heads, r % heads
        by_q = sum_squares(q + 4 * (t * get_i64(shape + TOKEN_Q) + h * get_i64(shape + HEAD_Q)), dim)
        by_k = sum_squares(k + 4 * (t * get_i64(shape + TOKEN_K) + h * get_i64(shape + HEAD_K)), dim)
        if thread_index() % WARP == 0:
            put_f32(scales + 8 * r, single(1.0 / math.sqrt((float(by_q) + eps) * dim)))
            put_f32(scales + 8 * r + 4, single(1.0 / math.sqrt(float(by_k) + eps)))
        r += grid_size() * warps


@device_function
def stage_token(q: int, k: int, t: int, tokens: int, dim: int, ldq: int, ldk: int) -> None:
    """Bring the query of a token and the key of the one behind it to shared memory, zeros behind their ends.

    Shapes: q, k float32 (tokens, dim), token strides ldq, ldk.
    """
    i = thread_index()
    if i < DIMS:
        queries = shared_memory() + QUERIES + 4 * (DIMS * (t % 2) + i)
        put_shared_f32(queries, get_f32(q + 4 * (t * ldq + i)) if t < tokens and i < dim else single(0.0))
        stage_key(k, t + 1, tokens, dim, ldk)


@device_function
def stage_key(k: int, t: int, tokens: int, dim: int, ldk: int) -> None:
    """Bring the key of a token to shared memory, zeros behind its end."""
    i = thread_index()
    if i < DIMS:
        at = shared_memory() + KEY_ROWS + 4 * (DIMS * (t % 3) + i)
        put_shared_f32(at, get_f32(k + 4 * (t * ldk + i)) if t < tokens and i < dim else single(0.0))


@device_function
def key_rows(t: int) -> int:
    """Where a token's key lies, from the warp's rows on."""
    return shared_memory() + KEY_ROWS + 4 * (DIMS * (t % 3) + ROWS * (thread_index() // WARP))


@device_function
def put_pass(where: int, t: int, x: float) -> None:
    """Note what a warp has summed of each column."""
    put_shared_f32(shared_memory() + where + PASS * (t % 2) + 4 * thread_index(), x)


@device_function
def sum_pass(where: int, t: int) -> float:
    """Sum what all warps have noted of the lane's column, in order."""
    at, total = shared_memory() + where + PASS * (t % 2) + 4 * (thread_index() % WARP), single(0.0)
    for warp in range(WARPS):
        total = total + get_shared_f32(at + 4 * COLUMNS * warp)
    return total


@device_function
def recall(low, high, t, more):  # type: ignore[no-untyped-def]
    """Sum a warp's rows of the state times a token's key."""
    found = dot_rows(single(0.0), low, key_rows(t))
    return dot_rows(found, high, key_rows(t) + 4 * WARPS * ROWS) if more != 0 else found


@inlined_device_function
def walk_slice(
    out: int, q: int, k: int, v: int, decay: int, scales: int, source: int, own: int, learned: int, tokens: int,
    columns: int, fresh: int, shape: int,
) -> None:  # fmt: skip
    """Walk the tokens of a sequence over a slice of the state of one head.

    for each t: S *= decay[t];  S += outer(k[t], beta[t] * (v[t] - k[t] @ S));  out[t] = q[t] @ S

    where q and k are scaled: the sums run over them as they are, and take the factor afterwards. S is taken from
    source, or begins as zeros if fresh, and goes to own, or nowhere where that is 0. With learned, learned[t] is what
    k[t] as it is meets: S += outer(k[t], learned[t]).

    Shapes: q, k float32 (tokens, dim), v, out float32 (tokens, min(columns, COLUMNS)), strides as shape says; decay,
    beta float32 (tokens,), stride heads; scales float32 (tokens, 2), stride 2 key_heads; source, own float32
    (dim, COLUMNS); learned 0, or float32 (tokens, COLUMNS). out may be v.
    """
    heads, key_heads, dim = get_i64(shape + HEADS), get_i64(shape + KEY_HEADS), get_i64(shape + DIM)
    ldq, ldk, beta = get_i64(shape + TOKEN_Q), get_i64(shape + TOKEN_K), decay + get_i64(shape + BETA)
    ldv, ldo = get_i64(shape + TOKEN_V), get_i64(shape + TOKEN_OUT)
    lane, row = thread_index() % WARP, ROWS * (thread_index() // WARP)
    more, low, high = int(dim > WARPS * ROWS), no_sums(), no_sums()
    if fresh == 0:
        low = load_state_rows(source + 4 * (COLUMNS * row + lane), dim - row)
        if more != 0:
            high = load_state_rows(source + 4 * (COLUMNS * (WARPS * ROWS + row) + lane), dim - WARPS * ROWS - row)
    stage_key(k, 0, tokens, dim, ldk)
    stage_token(q, k, 0, tokens, dim, ldq, ldk)
    syncthreads()
    put_pass(RECALLED, 1, recall(low, high, 0, more))
    syncthreads()
    for t in range(tokens):
        recalled = sum_pass(RECALLED, t + 1)
        kept, scale_k = get_f32(decay + 4 * t * heads), get_f32(scales + 8 * t * key_heads + 4)
        wanted = get_f32(v + 4 * (t * ldv + lane)) if lane < columns else single(0.0)
        lesson = fma(recalled, -kept * scale_k, wanted) * (get_f32(beta + 4 * t * heads) * scale_k)
        query = shared_memory() + QUERIES + 4 * (DIMS * (t % 2) + row)
        low = learn_rows(low, key_rows(t), kept, lesson)
        read = dot_rows(single(0.0), low, query)
        if more != 0:
            high = learn_rows(high, key_rows(t) + 4 * WARPS * ROWS, kept, lesson)
            read = dot_rows(read, high, query + 4 * WARPS * ROWS)
        put_pass(READ, t, read)
        put_pass(RECALLED, t, recall(low, high, t + 1, more))
        stage_token(q, k, t + 1, tokens, dim, ldq, ldk)
        syncthreads()
        if row == 0:
            if learned != 0:
                put_f32(learned + 4 * (t * COLUMNS + lane), lesson)
            if lane < columns:
                put_f32(out + 4 * (t * ldo + lane), sum_pass(READ, t) * get_f32(scales + 8 * t * key_heads))
    if own != 0:
        store_state_rows(own + 4 * (COLUMNS * row + lane), low, dim - row)
        if more != 0:
            store_state_rows(own + 4 * (COLUMNS * (WARPS * ROWS + row) + lane), high, dim - WARPS * ROWS - row)
    syncthreads()


@device_function
def keep_tokens(k: int, decay: int, row: int, tokens: int, h: int, shape: int) -> None:
    """Keep of a head what ``commit`` needs besides what its state learned: decays, and the keys of a key head once.

    kept_decay[h, row + t] = decay[t];  kept_k[h // group, row + t] = k[t] where h is the first head of its group

    Shapes: k float32 (tokens, dim), decay float32 (tokens,), strides as shape says; kept_k float32 (key_heads, W, dim),
    kept_decay float32 (heads, W), at the addresses in shape.
    """
    heads, dim, ldk = get_i64(shape + HEADS), get_i64(shape + DIM), get_i64(shape + TOKEN_K)
    group, room, t = heads // get_i64(shape + KEY_HEADS), get_i64(shape + ROOM), thread_index()
    while t < tokens:
        put_f32(get_i64(shape + DECAY) + 4 * (h * room + row + t), get_f32(decay + 4 * t * heads))
        t += THREADS
    i = thread_index()
    while h % group == 0 and i < tokens * dim:
        to = get_i64(shape + KEYS) + 4 * ((h // group * room + row) * dim + i)
        put_f32(to, get_f32(k + 4 * (i // dim * ldk + i % dim)))
        i += THREADS


@inlined_device_function
def walk_sequence(
    out: int, q: int, k: int, v: int, decay: int, scales: int, state: int, batch: int, shape: int, s: int, unit: int
) -> None:
    """Walk a sequence over one slice of one head.

    Shapes: as in ``gated_delta``.
    """
    heads, key_heads = get_i64(shape + HEADS), get_i64(shape + KEY_HEADS)
    dim, value_dim = get_i64(shape + DIM), get_i64(shape + VALUE_DIM)
    slices, size = (value_dim + COLUMNS - 1) // COLUMNS, 4 * COLUMNS * dim
    start, row = start_of(batch, s), tentative_of(batch, s)
    tokens, h, column = start_of(batch, s + 1) - start, unit // slices, unit % slices * COLUMNS
    if tokens <= 0:
        return
    source = state + size * (heads * slices * source_of(batch, s) + unit)
    own, learned = state + size * (heads * slices * slot_of(batch, s) + unit), 0
    key_head = h // (heads // key_heads)
    at_q = q + 4 * (start * get_i64(shape + TOKEN_Q) + key_head * get_i64(shape + HEAD_Q))
    at_k = k + 4 * (start * get_i64(shape + TOKEN_K) + key_head * get_i64(shape + HEAD_K))
    at_v = v + 4 * (start * get_i64(shape + TOKEN_V) + h * get_i64(shape + HEAD_V) + column)
    to = out + 4 * (start * get_i64(shape + TOKEN_OUT) + h * value_dim + column)
    gate, factors = decay + 4 * (start * heads + h), scales + 8 * (start * key_heads + key_head)
    if row >= 0:
        own, learned = 0, get_i64(shape + LEARNED) + 4 * COLUMNS * (unit * get_i64(shape + ROOM) + row)
        if column == 0:
            keep_tokens(at_k, gate, row, tokens, h, shape)
    fresh = int(past_of(batch, s) == 0)
    walk_slice(to, at_q, at_k, at_v, gate, factors, source, own, learned, tokens, value_dim - column, fresh, shape)


@cuda_kernel(block=THREADS, blocks=2, shared=SHARED)
def gated_delta(out: int, q: int, k: int, v: int, decay: int, scales: int, state: int, batch: int, shape: int) -> None:
    """Apply the gated delta rule to a batch of sequences; a block takes a slice of a sequence's state.

    for each token t of a sequence and each head h, with S = state[slots[s], h], which begins as state[sources[s], h]
    (as zero where past[s] is 0):
    S *= decay[t, h];  S += outer(k[t, h'], beta[t, h] * (v[t, h] - k[t, h'] @ S));  out[t, h] = q[t, h'] @ S
    where h' = h // (heads // key_heads), and q and k are scaled by ``head_scales``. The state of a tentative sequence
    stays as it is, and the window keeps what ``commit`` needs from its row on.

    Shapes: q, k float32 (T, key_heads, dim), v, out float32 (T, heads, value_dim), with gaps as shape says, dim at most
    DIMS; decay, beta float32 (T, heads); scales float32 (T, key_heads, 2); state float32 (slots, heads, slices, dim,
    COLUMNS), where slices are as many as hold value_dim columns; batch the record of ``_slices``, shape int64 (18,),
    that of ``_delta_record``, with learned float32 (heads, slices, W, COLUMNS), keys float32 (key_heads, W, dim), kept
    decay float32 (heads, W); desks are not used. Sums in float32. Where a source is another sequence's slot, a block
    does the sequences one after the other. out may be v.
    """
    slices = (get_i64(shape + VALUE_DIM) + COLUMNS - 1) // COLUMNS
    units, sequences, item = get_i64(shape + HEADS) * slices, sequences_of(batch), block_index()
    together = sequences if in_order(batch) else 1
    while item * together < units * sequences:
        first = item // units * together
        for s in range(first, first + together):
            walk_sequence(out, q, k, v, decay, scales, state, batch, shape, s, item % units)
        item += grid_size()
