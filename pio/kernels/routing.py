"""Which experts a token goes to, and the order in which experts find their tokens."""

from __future__ import annotations

import math

from pio.kernels._jit import kernel
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels._routing_record import EXPERTS, GROUPS, KEPT, LOGISTIC, RENORMALISE, SCALING, TINY, K
from pio.kernels.activation import sigmoid_lanes
from pio.kernels.parallel import parallel_kernel
from pio.kernels.simd import (
    LANES,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    put_f32,
    put_i32,
)
from pio.kernels.softmax import divide_row, exp_row, row_max
from pio.kernels.top_k import BLOCK, block_maxima, top_k


@kernel
def sigmoid_row(x: int, n: int) -> None:
    """Take the logistic function of a vector, in place.

    x[i] = 1 / (1 + e^-x[i])

    Shapes: x float32 (n,).
    """
    for i in range(0, n, LANES):
        store_up_to(x + 4 * i, sigmoid_lanes(load_up_to(x + 4 * i, n - i)), n - i)


@kernel
def keep_best_groups(choices: int, sums: int, experts: int, groups: int, kept: int) -> None:
    """Leave only the experts of the best groups; a group counts as much as its two best experts together.

    choices[e] = -inf unless fewer than ``kept`` groups are better than that of e; among equals the lower is better

    Shapes: choices float32 (experts,), groups of equal length side by side; sums float32 (groups,), scratch.
    """
    length = experts // groups
    for group in range(groups):
        first, second = -math.inf, -math.inf
        for e in range(group * length, (group + 1) * length):
            value = get_f32(choices + 4 * e)
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
        put_f32(sums + 4 * group, first + second if length > 1 else first)
    for group in range(groups):
        own, better = get_f32(sums + 4 * group), 0
        for other in range(groups):
            value = get_f32(sums + 4 * other)
            if value > own or (value == own and other < group):
                better += 1
        if better >= kept:
            for e in range(group * length, (group + 1) * length):
                put_f32(choices + 4 * e, -math.inf)


@kernel
def choose(ids: int, weights: int, scores: int, choices: int, bias: int, shape: int) -> None:
    """Choose a token's experts by score and bias, and weigh them by score alone.

    ids = the k largest of scores + bias in the best groups; weights = scaling * scores[ids] (/ their sum)

    Shapes: ids int32 (k,); weights float32 (k,); scores float32 (experts,); bias float32 (experts,) or 0; choices
    float32 (experts + groups + ceil(experts / 64),), scratch; shape int64 (7,), the record. Sums in float32 in
    the order of ids.
    """
    experts, k, groups = get_i64(shape + EXPERTS), get_i64(shape + K), get_i64(shape + GROUPS)
    scaling, maxima = get_f64(shape + SCALING), choices + 4 * (experts + groups)
    found = scores
    if bias != 0 or groups > 1:
        found = choices
        for e in range(experts):
            put_f32(choices + 4 * e, get_f32(scores + 4 * e) + (get_f32(bias + 4 * e) if bias != 0 else 0.0))
        if groups > 1:
            keep_best_groups(choices, choices + 4 * experts, experts, groups, get_i64(shape + KEPT))
    block_maxima(maxima, found, experts)
    top_k(weights, ids, found, maxima, experts, k)
    total = 0.0
    for j in range(k):
        weight = get_f32(scores + 4 * get_i32(ids + 4 * j))
        put_f32(weights + 4 * j, weight)
        total += weight
    factor = scaling / (total + TINY) if get_i64(shape + RENORMALISE) != 0 else scaling
    for j in range(k):
        put_f32(weights + 4 * j, get_f32(weights + 4 * j) * factor)


@parallel_kernel
def route(
    ids: int, weights: int, scores: int, bias: int, scratch: int, rows: int, shape: int, part: int, parts: int
) -> None:
    """Choose the experts of each row and their weights, split by rows.

    scores[r] = 1 / (1 + e^-scores[r]) if logistic else softmax(scores[r]);  then ``choose``

    Shapes: ids int32 (rows, k); weights float32 (rows, k); scores float32 (rows, experts), logits that are overwritten;
    bias float32 (experts,) or 0; scratch float32 (parts, experts + groups + ceil(experts / 64)); shape int64 (7,), the
    record above. A row's bits depend on nothing but the row.
    """
    experts, k = get_i64(shape + EXPERTS), get_i64(shape + K)
    own = scratch + 4 * part * (experts + get_i64(shape + GROUPS) + (experts + BLOCK - 1) // BLOCK)
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        row, at = scores + 4 * r * experts, 4 * r * k
        if get_i64(shape + LOGISTIC) != 0:
            sigmoid_row(row, experts)
        else:
            divide_row(row, experts, exp_row(row, row, experts, row_max(row, experts)))
        choose(ids + at, weights + at, row, own, bias, shape)


@parallel_kernel
def group_by_expert(
    order: int, starts: int, places: int, ids: int, n: int, experts: int, part: int, parts: int
) -> None:
    """Sort choices by expert, those of one expert as they come; one part does it all.

    order = indices 0 <= i < n, sorted by ids[i]; places[order[j]] = j; starts[e] = how many ids are less than e

    Shapes: ids, order, places int32 (n,); starts int32 (experts + 1,); 0 <= ids < experts.
    """
    if part > 0:
        return
    for e in range(experts + 1):
        put_i32(starts + 4 * e, 0)
    for i in range(n):
        at = starts + 4 * get_i32(ids + 4 * i) + 4
        put_i32(at, get_i32(at) + 1)
    for e in range(experts):
        put_i32(starts + 4 * e + 4, get_i32(starts + 4 * e + 4) + get_i32(starts + 4 * e))
    for i in range(n):  # starts[e] becomes the end of e's choices, which is where those of e + 1 start
        at = starts + 4 * get_i32(ids + 4 * i)
        j = get_i32(at)
        put_i32(order + 4 * j, i)
        put_i32(places + 4 * i, j)
        put_i32(at, j + 1)
    for e in range(experts, 0, -1):
        put_i32(starts + 4 * e, get_i32(starts + 4 * e - 4))
    put_i32(starts, 0)
