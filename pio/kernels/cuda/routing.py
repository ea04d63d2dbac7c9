"""Which experts a token goes to, as ``pio.kernels.routing``, to the bit: a block chooses for a row."""

from __future__ import annotations

import math

from pio.kernels._routing_record import (
    EXPERTS,
    GROUPS,
    KEPT,
    LOGISTIC,
    RENORMALISE,
    SCALING,
    TINY,
    K,
)
from pio.kernels.cuda._jit import cuda_kernel, device_function
from pio.kernels.cuda.exponential import exp, sigmoid
from pio.kernels.cuda.ptx import (
    WARP,
    ballot,
    block_index,
    divide,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    get_shared_f32,
    get_shared_i32,
    grid_size,
    ones,
    put_f32,
    put_i32,
    put_shared_f32,
    put_shared_i32,
    shared_memory,
    shuffle_xor,
    shuffle_xor_i32,
    single,
    syncthreads,
    thread_index,
)
from pio.kernels.sizes import GPU_GROUPS as GROUPS_AT_MOST

BLOCK = 128  # threads that choose for a row
SUMS = 16  # lanes that sum a row, as on the CPU
TOGETHER = 1024  # scores that are summed in float32
SORTERS = 256  # threads that sort choices
WARPS = SORTERS // WARP


@device_function
def row_max(x: int, n: int) -> float:
    """The largest number of a row, NaN left out; the same for every lane of a warp.

    Shapes: x float32 (n,).
    """
    best, i = single(-math.inf), thread_index() % WARP
    while i < n:
        value = get_f32(x + 4 * i)
        best = value if value > best else best
        i += WARP
    for bit in range(5):
        other = shuffle_xor(best, 1 << bit)
        best = other if other > best else best
    return best


@device_function
def row_sum(x: int, n: int) -> float:
    """The sum of a row: sixteen lanes in float32, by halving, and float64 over each 1024; every lane has it.

    Shapes: x float32 (n,).
    """
    total, lane = 0.0, thread_index() % SUMS
    first = 0
    while first < n:
        part, i = single(0.0), first + lane
        while i < min(first + TOGETHER, n):
            part = part + get_f32(x + 4 * i)
            i += SUMS
        for bit in range(4):
            part = part + shuffle_xor(part, 8 >> bit)
        total = total + part
        first += TOGETHER
    return single(total)


@device_function
def score_row(x: int, n: int, logistic: int) -> None:
    """Turn a row of logits into scores, in place, over the threads of a block.

    x[i] = 1 / (1 + e^-x[i]) if logistic else softmax(x)[i]

    Shapes: x float32 (n,).
    """
    i, top = thread_index(), single(0.0)
    if logistic == 0:
        top = row_max(x, n)
        syncthreads()
    while i < n:
        value = get_f32(x + 4 * i)
        put_f32(x + 4 * i, sigmoid(value) if logistic != 0 else exp(value - top))
        i += BLOCK
    syncthreads()
    if logistic == 0:
        total = row_sum(x, n)
        syncthreads()
        i = thread_index()
        while i < n:
            put_f32(x + 4 * i, divide(get_f32(x + 4 * i), total))
            i += BLOCK
        syncthreads()


@device_function
def score_of(scores: int, bias: int, e: int) -> float:
    """What an expert is chosen by."""
    value = get_f32(scores + 4 * e)
    return value + get_f32(bias + 4 * e) if bias != 0 else value


@device_function
def sum_groups(scores: int, bias: int, experts: int, groups: int) -> None:
    """Put what each group counts, its two best experts together, into shared memory.

    Shapes: scores float32 (experts,); bias float32 (experts,) or 0.
    """
    length, group = experts // groups, thread_index()
    while group < groups:
        first, second = single(-math.inf), single(-math.inf)
        for e in range(group * length, (group + 1) * length):
            value = score_of(scores, bias, e)
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
        put_shared_f32(shared_memory() + 4 * group, first + second if length > 1 else first)
        group += BLOCK
    syncthreads()


@device_function
def keep_groups(groups: int, kept: int) -> None:
    """Put 1 into shared memory for each group that fewer than ``kept`` are better than; of equals the lower is."""
    group = thread_index()
    while group < groups:
        own, better = get_shared_f32(shared_memory() + 4 * group), 0
        for other in range(groups):
            value = get_shared_f32(shared_memory() + 4 * other)
            if value > own or (value == own and other < group):
                better += 1
        put_shared_i32(shared_memory() + 4 * (GROUPS_AT_MOST + group), 1 if better < kept else 0)
        group += BLOCK
    syncthreads()


@device_function
def choose(ids: int, weights: int, scores: int, bias: int, shape: int) -> None:
    """Choose a row's experts by score and bias, and weigh them by score alone; one warp does it.

    ids = the k largest of scores + bias in the kept groups; weights = scaling * scores[ids] (/ their sum)

    Shapes: ids int32 (k,); weights float32 (k,); scores float32 (experts,); bias float32 (experts,) or 0; shape int64
    (7,), the record. Each round takes the best behind the one before: a smaller score, or as large a one of a later
    expert; NaN counts as -inf.
    """
    experts, k, groups = get_i64(shape + EXPERTS), get_i64(shape + K), get_i64(shape + GROUPS)
    length, lane, flags = experts // groups, thread_index(), shared_memory() + 4 * GROUPS_AT_MOST
    last, last_id = single(math.inf), -1
    total = 0.0
    for j in range(k):
        best, best_id, e = single(-math.inf), experts, lane
        while e < experts:
            value = score_of(scores, bias, e)
            if not value == value or (groups > 1 and get_shared_i32(flags + 4 * (e // length)) == 0):
                value = single(-math.inf)
            behind = value < last or (value == last and e > last_id)
            if behind and (value > best or (value == best and e < best_id)):
                best, best_id = value, e
            e += WARP
        for bit in range(5):
            other, other_id = shuffle_xor(best, 1 << bit), shuffle_xor_i32(best_id, 1 << bit)
            if other > best or (other == best and other_id < best_id):
                best, best_id = other, other_id
        last, last_id = best, best_id
        weight = get_f32(scores + 4 * best_id)
        total = total + weight
        if lane == 0:
            put_i32(ids + 4 * j, best_id)
            put_f32(weights + 4 * j, weight)
    if lane == 0:
        factor = get_f64(shape + SCALING)
        if get_i64(shape + RENORMALISE) != 0:
            factor = factor / (total + TINY)
        for j in range(k):
            put_f32(weights + 4 * j, single(get_f32(weights + 4 * j) * factor))


@cuda_kernel(block=BLOCK, shared=8 * GROUPS_AT_MOST)
def route(ids: int, weights: int, scores: int, bias: int, scratch: int, rows: int, shape: int) -> None:
    """Choose the experts of each row and their weights.

    scores[r] = 1 / (1 + e^-scores[r]) if logistic else softmax(scores[r]);  then ``choose``

    Shapes: ids int32 (rows, k); weights float32 (rows, k); scores float32 (rows, experts), logits that are overwritten;
    bias float32 (experts,) or 0; scratch is not used; shape int64 (7,), the record; at most 2048 groups. A row's bits
    depend on nothing but the row.
    """
    experts, k, groups = get_i64(shape + EXPERTS), get_i64(shape + K), get_i64(shape + GROUPS)
    r = block_index()
    while r < rows:
        row = scores + 4 * r * experts
        score_row(row, experts, get_i64(shape + LOGISTIC))
        if groups > 1:
            sum_groups(row, bias, experts, groups)
            keep_groups(groups, get_i64(shape + KEPT))
        if thread_index() < WARP:
            choose(ids + 4 * r * k, weights + 4 * r * k, row, bias, shape)
        syncthreads()
        r += grid_size()


@device_function
def warp_counts(here: int) -> tuple[int, int]:
    """How many threads before this one say 1, and how many of the block do."""
    lane, warp = thread_index() % WARP, thread_index() // WARP
    said = ballot(here)
    if lane == 0:
        put_shared_i32(shared_memory() + 4 * warp, ones(said))
    syncthreads()
    before, total = ones(said & ((1 << lane) - 1)), 0
    for w in range(WARPS):
        count = get_shared_i32(shared_memory() + 4 * w)
        before += count if w < warp else 0
        total += count
    syncthreads()
    return before, total


@cuda_kernel(block=SORTERS, shared=4 * WARPS)
def group_by_expert(order: int, starts: int, places: int, ids: int, n: int, experts: int) -> None:
    """Sort choices by expert, those of one expert as they come; a block finds those of an expert.

    order = indices 0 <= i < n, sorted by ids[i]; places[order[j]] = j; starts[e] = how many ids are less than e

    Shapes: ids, order, places int32 (n,); starts int32 (experts + 1,); 0 <= ids < experts.
    """
    e = block_index()
    while e < experts:
        less, i = 0, 0
        while i < n:
            own = i + thread_index()
            _, count = warp_counts(1 if own < n and get_i32(ids + 4 * min(own, n - 1)) < e else 0)
            less += count
            i += SORTERS
        if thread_index() == 0:
            put_i32(starts + 4 * e, less)
        at, i = less, 0
        while i < n:
            own = i + thread_index()
            mine = own < n and get_i32(ids + 4 * min(own, n - 1)) == e
            before, count = warp_counts(1 if mine else 0)
            if mine:
                put_i32(order + 4 * (at + before), own)
                put_i32(places + 4 * own, at + before)
            at += count
            i += SORTERS
        if e == experts - 1 and thread_index() == 0:
            put_i32(starts + 4 * experts, at)
        e += grid_size()
