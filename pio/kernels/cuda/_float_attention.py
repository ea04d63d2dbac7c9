"""One stretch of attention over a paged cache of floats, which lies as ``pio.kernels._float_attention`` says.

Scores are keys (positions, head_dim) times queries, outputs values (width, positions) times probabilities: the cache is
the left factor of the tensor cores, queries the right one, eight of them a tile. Keys and values go from memory to
registers as they lie. Queries and probabilities, which are float32, are the sum of two numbers of sixteen bits, which
leaves an error of 2^-18; so are keys and values of float32.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnnecessaryComparison=false
from __future__ import annotations

from pio.kernels._attention_record import GROUP, HEAD_DIM, KV_HEADS, SCALE
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._jit import device_function, device_function_per_dtype
from pio.kernels.cuda._stretches import (
    CHUNK,
    COUNT,
    END,
    HEAD,
    LOG2_E,
    OLDEST,
    QUARTER,
    QUERY_AREA,
    ROWS,
    SHRINK,
    TABLE,
    THREADS,
    UNIT,
    WARPS,
    chances_of,
    join_stretch,
    prefetch_lines,
    put_maxima,
    put_sums,
    see,
    stage_tile,
    work,
)
from pio.kernels.cuda.ptx import (
    WARP,
    bits_of,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    get_shared_f32,
    itemsize,
    load_shared_words,
    magnitude,
    maximum,
    of_bits,
    put_shared_f32,
    shared_memory,
    shuffle_xor,
    single,
    store_shared_words,
    syncthreads,
    thread_index,
)
from pio.kernels.cuda.ptx.fragments import QUERIES, RIGHT, add_product, left_words, load_rows, put_chances, split_words
from pio.kernels.cuda.ptx.score_tiles import no_sums
from pio.kernels.sizes import BLOCK

DEPTH = 16  # numbers of a head that meet in one instruction
STEP_BYTES = 16 * WARP  # of a tile's queries
STEPS = 32  # of all tiles of a block
QUERY_BYTES = STEPS * STEP_BYTES
CHANCES = QUERY_AREA + QUERY_BYTES  # behind queries: right factors of each warp, four of each tile
SHARED = CHANCES + WARPS * 8 * RIGHT
EXPONENT = 23  # bits below the exponent of a float32
narrow = PerDtype(lambda kind: int(kind == "float16"))  # whether products leave the range of numbers


@device_function
def steps_of(n: int) -> int:
    """Instructions that a head takes."""
    return (n + DEPTH - 1) // DEPTH


@device_function
def queries_of(shape: int) -> int:
    """Queries of a piece: fewer where heads are so wide that shared memory does not hold more."""
    return 2 * QUERIES if 2 * steps_of(get_i64(shape + HEAD_DIM)) <= STEPS else QUERIES


@device_function
def query_row(shape: int, token: int, kv: int, row: int) -> int:
    """Which head of all tokens row ``row`` of a key/value head is, counted from a token on."""
    group = get_i64(shape + GROUP)
    return ((token + row // group) * get_i64(shape + KV_HEADS) + kv) * group + row % group


@device_function_per_dtype
def put_unit(r: int, rows: int, most: float) -> None:
    """Choose a power of two that brings a query into the middle of what float16 holds, and a unit of its scores.

    Other types need none: they reach as far as float32 does. A warp does it, whose lanes know the largest number of
    theirs.
    """
    at, exponent = shared_memory() + 4 * r, 127
    if narrow != 0 and r < rows:
        for bit in range(5):
            most = maximum(most, shuffle_xor(most, 1 << bit))
        size = bits_of(most) >> EXPONENT
        if 0 < size < 255:
            exponent = min(max(261 - size, 1), 253)
    if thread_index() % WARP == 0:
        put_shared_f32(at + SHRINK, of_bits(exponent << EXPONENT))
        put_shared_f32(at + UNIT, of_bits((254 - exponent) << EXPONENT) * single(LOG2_E))


@device_function_per_dtype
def put_units(q: int, shape: int, token: int, row: int, rows: int) -> None:
    """Choose powers of two and units of all queries; a warp takes every fourth row."""
    lane, r = thread_index() % WARP, thread_index() // WARP
    n, scale = get_i64(shape + HEAD_DIM), single(get_f64(shape + SCALE))
    while r < ROWS:
        most = single(0.0)
        if narrow != 0 and r < rows:
            place, i = q + 4 * n * query_row(shape, token, work(HEAD), row + r), lane
            while i < n:
                most = maximum(most, magnitude(get_f32(place + 4 * i) * scale))
                i += WARP
        put_unit(r, rows, most)
        r += WARPS


@device_function_per_dtype
def put_queries(q: int, q_rope: int, shape: int, token: int, row: int, rows: int) -> None:
    """Lay out the queries of a block as words of right factors, in shared memory.

    Shapes: q float32 (T, heads, head_dim), q_rope not used; words (tiles, steps, 32, 4): of a lane four neighbours of
    its query, as rounded numbers and as what is left.
    """
    n, scale = get_i64(shape + HEAD_DIM), single(get_f64(shape + SCALE))
    put_units(q, shape, token, row, rows)
    syncthreads()
    steps = steps_of(n)
    tiles = (rows + QUERIES - 1) // QUERIES
    i = thread_index()
    while i < tiles * steps * WARP:
        r, first = i // WARP // steps * QUERIES + i % WARP // 4, DEPTH * (i // WARP % steps) + 4 * (i % 4)
        factor = get_shared_f32(shared_memory() + SHRINK + 4 * r) * scale
        left = n - first if r < rows else 0
        place = q + 4 * (n * query_row(shape, token, work(HEAD), row + min(r, rows - 1)) + first)
        a, b = number(place, left, scale, factor), number(place + 4, left - 1, scale, factor)
        c, d = number(place + 8, left - 2, scale, factor), number(place + 12, left - 3, scale, factor)
        high0, low0 = split_words(a, b)
        high1, low1 = split_words(c, d)
        store_shared_words(shared_memory() + QUERY_AREA + 16 * i, high0, high1, low0, low1)
        i += THREADS


@device_function
def number(place: int, left: int, scale: float, factor: float) -> float:
    """A number of a query times the factor of scores and a power of two; zero where there is none left."""
    if left <= 0:
        return single(0.0)
    return get_f32(place) * factor


@device_function_per_dtype
def scores_of(at: int, n: int, more: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Multiply a quarter's keys by the queries of one tile, or of two.

    Shapes: at where the lane's eight positions lie in row 0 of keys (head_dim, BLOCK) of the kernel's type.
    """
    lane = thread_index() % WARP
    low, high, row = no_sums(), no_sums(), itemsize * BLOCK
    steps, whole = steps_of(n), n // DEPTH
    place, right, step = at + 4 * (lane % 4) * row, shared_memory() + QUERY_AREA + 16 * lane, 0
    while step + 2 <= whole:
        here = load_rows(place, place + row, place + 2 * row, place + 3 * row)
        place += DEPTH * row
        then = load_rows(place, place + row, place + 2 * row, place + 3 * row)
        place += DEPTH * row
        low, high = add_step(low, high, left_words(here), right, steps, more)
        low, high = add_step(low, high, left_words(then), right + STEP_BYTES, steps, more)
        right += 2 * STEP_BYTES
        step += 2
    while step < steps:  # behind the last number of a head there are zeros in queries
        d, last = DEPTH * step + 4 * (lane % 4), n - 1
        here = load_rows(
            at + min(d, last) * row,
            at + min(d + 1, last) * row,
            at + min(d + 2, last) * row,
            at + min(d + 3, last) * row,
        )
        low, high = add_step(low, high, left_words(here), right, steps, more)
        right += STEP_BYTES
        step += 1
    return low, high


@device_function_per_dtype
def add_step(low, high, left, right, steps, more):  # type: ignore[no-untyped-def]
    """Add the products of keys and of DEPTH numbers of the queries, which lie at ``right``."""
    h0, h1, l0, l1 = load_shared_words(right)
    low = add_product(low, left, h0, h1, l0, l1)
    if more != 0:
        h0, h1, l0, l1 = load_shared_words(right + steps * STEP_BYTES)
        high = add_product(high, left, h0, h1, l0, l1)
    return low, high


@device_function_per_dtype
def rows_of(at, i, oldest, last, row):  # type: ignore[no-untyped-def]
    """Eight numbers of each of four positions' values, of rows that are there.

    Shapes: at where the lane's eight numbers lie in row 0 of a block's values (BLOCK, width), row bytes from row to
    row; i is the first of the four, of which rows from oldest to last are there.
    """
    return load_rows(
        at + min(max(i, oldest), last) * row,
        at + min(max(i + 8, oldest), last) * row,
        at + min(max(i + 1, oldest), last) * row,
        at + min(max(i + 9, oldest), last) * row,
    )


@device_function_per_dtype
def add_values(low, high, values, right, more):  # type: ignore[no-untyped-def]
    """Add the products of four positions' values and their probabilities, right factors of one tile or of two."""
    left = left_words(values)
    h0, h1, l0, l1 = load_shared_words(right)
    low = add_product(low, left, h0, h1, l0, l1)
    if more != 0:
        h0, h1, l0, l1 = load_shared_words(right + 4 * RIGHT)
        high = add_product(high, left, h0, h1, l0, l1)
    return low, high


@device_function_per_dtype
def take_stretch(into: int, keys: int, values: int, shape: int, start: int, fresh: int) -> None:
    """Let a block's rows see a stretch.

    Shapes: into as in ``add_chunk``; keys (blocks, kv_heads, head_dim, BLOCK) and values (blocks, kv_heads, BLOCK,
    width) of the kernel's type; table int32. Sums in float32.
    """
    lane, warp, oldest, end = thread_index() % WARP, thread_index() // WARP, work(OLDEST), work(END)
    n, kv_heads, rows = get_i64(shape + HEAD_DIM), get_i64(shape + KV_HEADS), work(COUNT)
    width, more, first = (n + 15) // 16 * 16, rows - QUERIES, start + QUARTER * warp
    low, high = no_sums(), no_sums()
    there = first < end and first + QUARTER > oldest
    position = first + 8 * (lane // 4)
    if there:
        block = min(max(position // BLOCK, oldest // BLOCK), (end - 1) // BLOCK)
        head = get_i32(work(TABLE) + 4 * block) * kv_heads + work(HEAD)
        for i in range(QUARTER // BLOCK):
            later = min(max(first // BLOCK + i, oldest // BLOCK), (end - 1) // BLOCK)
            size = itemsize * width * BLOCK
            prefetch_lines(values + (get_i32(work(TABLE) + 4 * later) * kv_heads + work(HEAD)) * size, size)
        low, high = scores_of(keys + itemsize * (head * n * BLOCK + position % BLOCK), n, max(more, 0))
    low, high = see(low, 0, position), see(high, 1, position)
    put_maxima(0, low)
    put_maxima(1, high)
    syncthreads()
    low, high = chances_of(low, 0), chances_of(high, 1)
    put_sums(0, low)
    put_sums(1, high)
    right = shared_memory() + CHANCES + 8 * RIGHT * warp + 16 * lane
    put_chances(right, low)
    if more > 0:
        put_chances(right + 4 * RIGHT, high)
    syncthreads()
    join_stretch(rows)
    position = first + 16 * (lane % 4)
    block = min(max(position // BLOCK, oldest // BLOCK), (end - 1) // BLOCK)
    head = get_i32(work(TABLE) + 4 * block) * kv_heads + work(HEAD)
    begin, row = position - block * BLOCK, itemsize * width
    bottom, top = max(oldest - block * BLOCK, 0), min(end - 1 - block * BLOCK, BLOCK - 1)
    for chunk in range((width + CHUNK - 1) // CHUNK):
        a, b = no_sums(), no_sums()
        if there:
            at = values + itemsize * (head * BLOCK * width + min(CHUNK * chunk + 8 * (lane // 4), width - 8))
            for i in range(2):
                one = rows_of(at, begin + 4 * i, bottom, top, row)
                two = rows_of(at, begin + 4 * i + 2, bottom, top, row)
                a, b = add_values(a, b, one, right + 2 * RIGHT * i, max(more, 0))
                a, b = add_values(a, b, two, right + 2 * RIGHT * i + RIGHT, max(more, 0))
        stage_tile(into, a, 0, chunk, rows, n, fresh)
        if more > 0:
            stage_tile(into, b, 1, chunk, rows, n, fresh)
