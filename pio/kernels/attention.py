"""Attention over a paged cache: tiled online softmax, causal, grouped queries, sliding window.

A cache block holds BLOCK positions of one key/value head: keys transposed (head_dim, BLOCK), so that a vector of
scores needs no sum over lanes, values as rows (BLOCK, value_dim). Blocks are walked in order of position, so a
query's bits do not depend on what else is in the batch, how the prompt was cut or how many threads ran.
"""

from __future__ import annotations

import math

from pio.kernels._jit import kernel, kernel_per_dtype
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import (
    LANES,
    WIDE,
    copy_element,
    exp,
    get_f32,
    get_i32,
    itemsize,
    keep,
    load_f32,
    load_part_f32,
    max_lanes,
    maximum,
    put_f32,
    splat,
    store,
    store_f32,
    store_part,
    store_part_f32,
    sum_lanes,
)
from pio.kernels.sizes import BLOCK, PARTS, ROWS
from pio.kernels.tiles import outer_tile, prefetch

FEW = 8  # so many rows of a head compute for as long as memory takes to bring the next keys or values
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
def fill_f32(address: int, n: int, value: float) -> None:
    """Set n float32, a multiple of 16, to a value.

    x[i] = value

    Shapes: x float32 (n,).
    """
    for i in range(0, n, LANES):
        store_f32(address + 4 * i, splat(value))


@kernel
def scale_row(out: int, x: int, n: int, factor: float) -> None:
    """Multiply a row by a number.

    out[i] = factor * x[i]

    Shapes: x, out float32 (n,). out may be x.
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(out + 4 * i, load_f32(x + 4 * i) * splat(factor))
    if n > whole:
        rest = n - whole
        store_part_f32(out + 4 * whole, load_part_f32(x + 4 * whole, rest) * splat(factor), rest)


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
def attend_rows(
    out: int,
    q: int,
    keys: int,
    values: int,
    table: int,
    scratch: int,
    position: int,
    tokens: int,
    length: int,
    heads: int,
    ldq: int,
    ldo: int,
    kv_heads: int,
    head_dim: int,
    value_dim: int,
    out_dim: int,
    window: int,
    scale: float,
) -> None:
    """Attend for one key/value head: a few tokens of one sequence and a few query heads of the group.

    out[t, h] = softmax(scale * q[t, h] . keys[j] for j <= position + t (j < length where that is not 0),
    position + t - window < j) @ values[j]

    Shapes: q float32 (tokens, heads, head_dim), token stride ldq; out float32 (tokens, heads, out_dim), token stride
    ldo; keys (blocks, kv_heads, head_dim, BLOCK) and values (blocks, kv_heads, BLOCK,
    value_dim) of the kernel's type, offset to this head; table int32 (blocks of the sequence,); scratch float32
    (scratch_floats,). tokens * heads <= ROWS. Window 0 is none.
    Length 0 is causal. Sums in float32, blocks in order of position.
    """
    rows = tokens * heads
    scaled = (scratch + 63) // 64 * 64
    acc = scaled + 4 * ROWS * head_dim
    scores = acc + 4 * ROWS * value_dim
    state = scores + 4 * ROWS * BLOCK
    for r in range(rows):
        scale_row(scaled + 4 * r * head_dim, q + 4 * (r // heads * ldq + r % heads * head_dim), head_dim, scale)
        put_f32(state + 8 * r, -math.inf)
        put_f32(state + 8 * r + 4, 0.0)
    fill_f32(acc, rows * value_dim, 0.0)
    oldest = max(0, position - window + 1) if window > 0 else 0
    end = length if length > 0 else position + tokens
    for block in range(oldest // BLOCK, (end - 1) // BLOCK + 1):
        start = block * BLOCK
        page = get_i32(table + 4 * block) * kv_heads
        after = get_i32(table + 4 * block + 4) * kv_heads if start + BLOCK < end else page
        if rows < FEW:
            prefetch(keys + itemsize * after * head_dim * BLOCK, itemsize * head_dim * BLOCK)
        fill_f32(scores, rows * BLOCK, 0.0)
        outer_rows(
            scores, scaled, keys + itemsize * page * head_dim * BLOCK, rows, head_dim, BLOCK, BLOCK, head_dim, BLOCK
        )
        for r in range(rows):
            at = position + r // heads
            first = max(0, at - window + 1 - start) if window > 0 else 0
            last = min(BLOCK, (length if length > 0 else at + 1) - start)
            online_softmax(scores + 4 * r * BLOCK, acc + 4 * r * value_dim, value_dim, state + 8 * r, first, last)
        count = min(BLOCK, end - start)
        at_values = values + itemsize * page * BLOCK * value_dim
        if rows < FEW:
            prefetch(values + itemsize * after * BLOCK * value_dim, itemsize * BLOCK * value_dim)
        outer_rows(acc, scores, at_values, rows, count, value_dim, value_dim, BLOCK, value_dim)
    for r in range(rows):
        place = out + 4 * (r // heads * ldo + r % heads * out_dim)
        scale_row(place, acc + 4 * r * value_dim, out_dim, 1.0 / get_f32(state + 8 * r + 4))


@kernel
def turn_of(part: int, parts: int) -> int:
    """Return which turn is a part's when pieces are dealt: the first part of every thread gets one, then the second.

    Shapes: none; parts is 1 or PARTS for each thread.
    """
    return part % PARTS * max(1, parts // PARTS) + part // PARTS


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def attention(
    out: int,
    q: int,
    keys: int,
    values: int,
    tables: int,
    starts: int,
    past: int,
    scratch: int,
    scratch_stride: int,
    sequences: int,
    ldq: int,
    ldt: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    value_dim: int,
    out_dim: int,
    causal: int,
    window: int,
    scale: float,
    part: int,
    parts: int,
) -> None:
    """Attend for a batch of sequences over their paged caches, pieces of work dealt to the parts in turn.

    out[t, h] = softmax(scale * q[t, h] . keys[j], j <= position of t if causal, inside the window) @ values[j]

    Shapes: q float32 (T, kv_heads * group, head_dim), token stride ldq; out float32 (T, kv_heads * group, out_dim);
    keys (blocks, kv_heads, head_dim, BLOCK) and values (blocks, kv_heads, BLOCK, value_dim) of the kernel's type,
    value_dim = out_dim rounded up to 16; tables int32 (S, ldt); starts int32 (S + 1,); past int32 (S,); scratch
    float32 (parts, scratch_stride bytes). A piece is one key/value head and up to ROWS queries of a sequence. Window 0
    is none. Sums in float32.
    """
    token_step, head_step, heads = max(1, ROWS // group), min(group, ROWS), kv_heads * group
    piece, turn = -1, turn_of(part, parts)
    for s in range(sequences):
        first, last, before = get_i32(starts + 4 * s), get_i32(starts + 4 * s + 4), get_i32(past + 4 * s)
        for t in range(first, last, token_step):
            for head in range(0, heads, group):
                for h in range(head, head + group, head_step):
                    piece += 1
                    if piece % parts != turn:
                        continue
                    attend_rows(
                        out + 4 * (t * heads + h) * out_dim,
                        q + 4 * (t * ldq + h * head_dim),
                        keys + itemsize * (head // group) * head_dim * BLOCK,
                        values + itemsize * (head // group) * BLOCK * value_dim,
                        tables + 4 * s * ldt,
                        scratch + part * scratch_stride,
                        before + t - first,
                        min(token_step, last - t),
                        0 if causal else before + last - first,
                        min(head_step, head + group - h),
                        ldq,
                        heads * out_dim,
                        kv_heads,
                        head_dim,
                        value_dim,
                        out_dim,
                        window,
                        scale,
                    )


@parallel_kernel_per_dtype(parts_per_thread=PARTS)
def write_cache(
    keys: int,
    values: int,
    k: int,
    v: int,
    tables: int,
    starts: int,
    past: int,
    scratch: int,
    scratch_stride: int,
    sequences: int,
    ldk: int,
    ldv: int,
    ldt: int,
    kv_heads: int,
    head_dim: int,
    value_dim: int,
    v_dim: int,
    part: int,
    parts: int,
) -> None:
    """Store the keys and values of a batch in the blocks of its sequences; each part does some heads.

    keys[block, h, :, p % BLOCK] = k[t, h];  values[block, h, p % BLOCK, :v_dim] = v[t, h];  block = table[p // BLOCK]

    Shapes: k float32 (T, kv_heads, head_dim), token stride ldk; v float32 (T, kv_heads, v_dim), token stride ldv;
    keys, values, tables, starts, past as in ``attention``; scratch (parts, scratch_stride bytes), in which head_dim
    elements of the kernel's type fit. Rounded to the cache's type.
    """
    rounded = scratch + part * scratch_stride
    for s in range(sequences):
        first, last, before = get_i32(starts + 4 * s), get_i32(starts + 4 * s + 4), get_i32(past + 4 * s)
        for t in range(first, last):
            at = before + t - first
            page = get_i32(tables + 4 * (s * ldt + at // BLOCK)) * kv_heads
            slot = at % BLOCK
            for head in range(part * kv_heads // parts, (part + 1) * kv_heads // parts):
                round_row(rounded, k + 4 * (t * ldk + head * head_dim), head_dim)
                column = keys + itemsize * ((page + head) * head_dim * BLOCK + slot)
                for i in range(head_dim):
                    copy_element(column + itemsize * i * BLOCK, rounded + itemsize * i)
                row = values + itemsize * ((page + head) * BLOCK + slot) * value_dim
                round_row(row, v + 4 * (t * ldv + head * v_dim), v_dim)


@kernel_per_dtype
def round_row(out: int, x: int, n: int) -> None:
    """Convert a float32 row to the kernel's type, to nearest even.

    Shapes: x float32 (n,); out (n,) of the kernel's type.
    """
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        store(out + itemsize * i, load_f32(x + 4 * i))
    if n > whole:
        store_part(out + itemsize * whole, load_part_f32(x + 4 * whole, n - whole), n - whole)
