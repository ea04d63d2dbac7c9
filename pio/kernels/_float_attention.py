"""Attention over a paged cache of floats: the part of the walk in ``attention`` that knows how they lie in memory.

A cache block holds BLOCK positions of one key/value head: keys transposed (head_dim, BLOCK), so that a vector of
scores needs no sum over lanes, values as rows (BLOCK, width).
"""

from __future__ import annotations

import math

from pio.kernels._attention_shape import FEW, HEAD_DIM, SCALE, WINDOW, width_of
from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels._rows import fill_f32, round_row, scale_row
from pio.kernels.exponential import exp
from pio.kernels.simd import (
    LANES,
    WIDE,
    copy_element,
    get_f32,
    get_f64,
    get_i64,
    itemsize,
    keep,
    load_f32,
    max_lanes,
    maximum,
    put_f32,
    splat,
    store_f32,
    sum_lanes,
)
from pio.kernels.sizes import BLOCK, ROWS
from pio.kernels.tiles import outer_tile, prefetch

MOST = 8 if WIDE else 4  # rows of a tile: thirty-two registers hold 8 x 2 accumulators beside two vectors of b

most_by_two, most_by_one = outer_tile(MOST, 2), outer_tile(MOST, 1)
four_by_two, four_by_one = outer_tile(4, 2), outer_tile(4, 1)
two_by_two, two_by_one = outer_tile(2, 2), outer_tile(2, 1)
one_by_two, one_by_one = outer_tile(1, 2), outer_tile(1, 1)


@kernel_per_dtype
def outer_rows(c: int, a: int, b: int, rows: int, n: int, columns: int, ldc: int, lda: int, ldb: int) -> None:
    """Add a product of two matrices to a third.

    c[r, j] += sum_i a[r, i] * b[i, j]

    Shapes: a float32 (rows, n), b (n, columns) of the kernel's type, c float32 (rows, columns), columns a multiple
    of 16; row strides lda, ldb, ldc in elements. Sums in float32 in the order of i, the same for every row.
    """
    r = 0
    while r < rows:
        step = MOST if rows - r >= MOST else 4 if rows - r >= 4 else 2 if rows - r >= 2 else 1
        at_c, at_a = c + 4 * r * ldc, a + 4 * r * lda
        j = 0
        while j < columns:
            pair = columns - j >= 2 * LANES
            place, at_b = at_c + 4 * j, b + itemsize * j
            if step == MOST:
                if pair:
                    most_by_two(place, at_a, at_b, n, ldc, lda, ldb)
                else:
                    most_by_one(place, at_a, at_b, n, ldc, lda, ldb)
            elif step == 4:
                if pair:
                    four_by_two(place, at_a, at_b, n, ldc, lda, ldb)
                else:
                    four_by_one(place, at_a, at_b, n, ldc, lda, ldb)
            elif step == 2:
                if pair:
                    two_by_two(place, at_a, at_b, n, ldc, lda, ldb)
                else:
                    two_by_one(place, at_a, at_b, n, ldc, lda, ldb)
            elif pair:
                one_by_two(place, at_a, at_b, n, ldc, lda, ldb)
            else:
                one_by_one(place, at_a, at_b, n, ldc, lda, ldb)
            j += 2 * LANES if pair else LANES
        r += step


@kernel
def online_softmax(scores: int, acc: int, value_dim: int, state: int, first: int, last: int) -> None:
    """Take one block of scores into a query's running softmax; the scores become its probabilities.

    m' = max(m, scores), p = exp(scores - m'), l' = l * exp(m - m') + sum(p), acc *= exp(m - m')

    Shapes: scores float32 (BLOCK,), of which first <= j < last count; acc float32 (value_dim,), value_dim a multiple
    of 16; state float32 (2,): m and l. Sums in float32.
    """
    if last <= first:
        store_f32(scores, splat(0.0))
        store_f32(scores + 4 * LANES, splat(0.0))
        return
    low = keep(load_f32(scores), first, last, -math.inf)
    high = keep(load_f32(scores + 4 * LANES), first - LANES, last - LANES, -math.inf)
    old = get_f32(state)
    new = max_lanes(maximum(maximum(low, high), splat(old)))
    low, high = exp(low - splat(new)), exp(high - splat(new))
    store_f32(scores, low)
    store_f32(scores + 4 * LANES, high)
    total = sum_lanes(low + high)
    if new > old:
        shrink = max_lanes(exp(splat(old) - splat(new)))  # 0 in a query's first block, where old is -inf
        put_f32(state + 4, get_f32(state + 4) * shrink + total)
        scale_row(acc, acc, value_dim, shrink)
    else:
        put_f32(state + 4, get_f32(state + 4) + total)
    put_f32(state, new)


@kernel_per_dtype
def begin_rows(work: int, rows: int, shape: int) -> None:
    """Have seen nothing yet: outputs are zero, so are sums, and the largest score is below every number.

    Shapes: work float32 (attention_floats,), whose parts are queries (ROWS, head_dim), outputs (ROWS, width), scores
    (ROWS, BLOCK), and for each row its largest score and its sum.
    """
    acc = work + 4 * ROWS * get_i64(shape + HEAD_DIM)
    state = acc + 4 * ROWS * (width_of(shape) + BLOCK)
    fill_f32(acc, rows * width_of(shape), 0.0)
    for r in range(rows):
        put_f32(state + 8 * r, -math.inf)
        put_f32(state + 8 * r + 4, 0.0)


@kernel_per_dtype
def put_queries(work: int, first: int, count: int, q: int, shape: int) -> None:
    """Take in the queries of some rows, times the factor of scores.

    Shapes: q float32 (count, head_dim), of the rows from ``first`` on; work as in ``begin_rows``.
    """
    head_dim, scale = get_i64(shape + HEAD_DIM), get_f64(shape + SCALE)
    for r in range(count):
        scale_row(work + 4 * (first + r) * head_dim, q + 4 * r * head_dim, head_dim, scale)


@kernel_per_dtype
def take_block(
    work: int, keys: int, values: int, page: int, after: int, at: int, left: int, tokens: int, heads: int, span: int,
    shape: int,
) -> None:  # fmt: skip
    """Let all rows see a cache block of each of ``span`` key/value heads.

    Shapes: work as in ``begin_rows``, rows of a head one behind the other; keys (blocks, kv_heads, head_dim, BLOCK) and
    values (blocks, kv_heads, BLOCK, width) of the kernel's type; page and after count the first head of this block and
    of the next; at is how far the first token's position is behind the block's first, left likewise the length of what
    all tokens see, where that is not 0. Sums in float32.
    """
    head_dim, width, window = get_i64(shape + HEAD_DIM), width_of(shape), get_i64(shape + WINDOW)
    per, size = tokens * heads, itemsize * BLOCK * head_dim
    value_size, count = itemsize * BLOCK * width, min(BLOCK, left if left > 0 else at + tokens)
    acc = work + 4 * ROWS * head_dim
    scores = acc + 4 * ROWS * width
    state = scores + 4 * ROWS * BLOCK
    for i in range(span):  # the heads of a block lie side by side: one stream of memory
        row, following = i * per, page + i + 1 if i + 1 < span else after
        if per < FEW:
            prefetch(keys + following * size, size)
        fill_f32(scores, per * BLOCK, 0.0)
        at_keys = keys + (page + i) * size
        outer_rows(scores, work + 4 * row * head_dim, at_keys, per, head_dim, BLOCK, BLOCK, head_dim, BLOCK)
        for r in range(per):
            seen = at + r // heads + 1
            first, last = max(0, seen - window) if window > 0 else 0, min(BLOCK, left if left > 0 else seen)
            at_acc = acc + 4 * (row + r) * width
            online_softmax(scores + 4 * r * BLOCK, at_acc, width, state + 8 * (row + r), first, last)
        if per < FEW:
            prefetch(values + following * value_size, value_size)
        at_values = values + (page + i) * value_size
        outer_rows(acc + 4 * row * width, scores, at_values, per, count, width, width, BLOCK, width)


@kernel_per_dtype
def finish_rows(out: int, work: int, first: int, count: int, shape: int) -> None:
    """Write what attention gives for some rows.

    Shapes: out float32 (count, head_dim), of the rows from ``first`` on; work as in ``begin_rows``.
    """
    head_dim, width = get_i64(shape + HEAD_DIM), width_of(shape)
    acc = work + 4 * ROWS * head_dim
    state = acc + 4 * ROWS * (width + BLOCK)
    for r in range(count):
        total = get_f32(state + 8 * (first + r) + 4)
        scale_row(out + 4 * r * head_dim, acc + 4 * (first + r) * width, head_dim, 1.0 / total)


@kernel_per_dtype
def store_position(
    keys: int, values: int, page: int, slot: int, rounded: int, k: int, v: int, head_dim: int, width: int
) -> None:
    """Put the key and the value of a position and head into their block, rounded to the cache's type.

    Shapes: k, v float32 (head_dim,); keys, values, page as in ``take_block``; slot < BLOCK; rounded (head_dim,) of the
    kernel's type, scratch.
    """
    round_row(rounded, k, head_dim)
    column = keys + itemsize * (page * head_dim * BLOCK + slot)
    for i in range(head_dim):
        copy_element(column + itemsize * i * BLOCK, rounded + itemsize * i)
    round_row(values + itemsize * (page * BLOCK + slot) * width, v, head_dim)
