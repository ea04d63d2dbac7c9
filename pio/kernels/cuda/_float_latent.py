"""One stretch of latent attention over a paged cache of floats, which lies as ``pio.kernels._float_latent`` says.

As ``_float_attention``, but for keys, which are rows here: a lane reads eight neighbours of a position and gives them
to two instructions, so that queries are laid out likewise. Values are the beginnings of the same rows. All heads of a
token see them, three tiles at once.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnnecessaryComparison=false
from __future__ import annotations

from pio.kernels._latent_record import (
    HEAD_LATENT,
    HEAD_ROPE,
    HEADS,
    RANK,
    ROPE_DIM,
    SCALE,
    TOKEN_LATENT,
    TOKEN_ROPE,
)
from pio.kernels.cuda._float_attention import DEPTH, STEP_BYTES, narrow, put_unit
from pio.kernels.cuda._jit import device_function, device_function_per_dtype
from pio.kernels.cuda._stretches import (
    CHUNK,
    COUNT,
    END,
    QUARTER,
    QUERY_AREA,
    ROWS,
    SHRINK,
    TABLE,
    THREADS,
    WARPS,
    chances_of,
    join_stretch,
    put_maxima,
    put_sums,
    see,
    stage_tile,
    work,
)
from pio.kernels.cuda.ptx import (
    WARP,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    get_shared_f32,
    itemsize,
    load_shared_words,
    magnitude,
    maximum,
    shared_memory,
    single,
    store_shared_words,
    syncthreads,
    thread_index,
)
from pio.kernels.cuda.ptx.fragments import (
    QUERIES,
    RIGHT,
    add_product,
    add_row_products,
    left_words,
    load_rows,
    put_chances,
    row_words,
    split_words,
)
from pio.kernels.cuda.ptx.score_tiles import no_sums
from pio.kernels.sizes import BLOCK, KEY_STEP

STEP = 2 * DEPTH  # numbers of a row that a lane's loads bring
LATENT_STEPS = 108  # steps of DEPTH of all tiles of a block: three tiles of rows of 576
QUERY_BYTES = LATENT_STEPS * STEP_BYTES
CHANCES = QUERY_AREA + QUERY_BYTES
TILE_CHANCES = 4 * RIGHT
SHARED = CHANCES + WARPS * 3 * TILE_CHANCES


@device_function
def values_of(shape: int) -> int:
    """Return how many numbers of a row the latent takes."""
    return (get_i64(shape + RANK) + 31) // 32 * 32


@device_function
def row_of(shape: int) -> int:
    """Return how many numbers a row has."""
    return values_of(shape) + (get_i64(shape + ROPE_DIM) + KEY_STEP - 1) // KEY_STEP * KEY_STEP


@device_function
def steps_of(shape: int) -> int:
    """Return how many instructions a row takes: an even number."""
    return (row_of(shape) + STEP - 1) // STEP * 2


@device_function
def queries_of(shape: int) -> int:
    """Queries of a piece: fewer where latents are so wide that shared memory does not hold more."""
    return QUERIES * min(ROWS // QUERIES, LATENT_STEPS // steps_of(shape))


@device_function
def query_number(latent: int, rope: int, d: int, values: int, shape: int) -> float:
    """Number d of a query as the cache lays out its rows, zero where there is none.

    Shapes: latent float32 (rank,), rope float32 (rope_dim,).
    """
    if d < get_i64(shape + RANK):
        return get_f32(latent + 4 * d)
    if values <= d < values + get_i64(shape + ROPE_DIM):
        return get_f32(rope + 4 * (d - values))
    return single(0.0)


@device_function
def latent_of(q: int, shape: int, token: int, row: int) -> int:
    """The address of a row's query for latents; row counts heads of tokens, from a token on."""
    heads = get_i64(shape + HEADS)
    return q + 4 * ((token + row // heads) * get_i64(shape + TOKEN_LATENT) + row % heads * get_i64(shape + HEAD_LATENT))


@device_function
def rope_of(q: int, shape: int, token: int, row: int) -> int:
    """The address of a row's query for rotated keys."""
    heads = get_i64(shape + HEADS)
    return q + 4 * ((token + row // heads) * get_i64(shape + TOKEN_ROPE) + row % heads * get_i64(shape + HEAD_ROPE))


@device_function_per_dtype
def put_units(q_latent: int, q_rope: int, shape: int, token: int, row: int, rows: int) -> None:
    """Choose powers of two and units of all queries; a warp takes every fourth row."""
    lane, r, values = thread_index() % WARP, thread_index() // WARP, values_of(shape)
    width, scale = values + get_i64(shape + ROPE_DIM), single(get_f64(shape + SCALE))
    while r < ROWS:
        most = single(0.0)
        if narrow != 0 and r < rows:
            latent, rope = latent_of(q_latent, shape, token, row + r), rope_of(q_rope, shape, token, row + r)
            d = lane
            while d < width:
                most = maximum(most, magnitude(query_number(latent, rope, d, values, shape) * scale))
                d += WARP
        put_unit(r, rows, most)
        r += WARPS


@device_function_per_dtype
def put_queries(q_latent: int, q_rope: int, shape: int, token: int, row: int, rows: int) -> None:
    """Lay out the queries of a block as words of right factors, in shared memory.

    Shapes: words (tiles, steps, 32, 4): of a lane four neighbours of its query, as rounded numbers and as what is left.
    """
    steps, values, scale = steps_of(shape), values_of(shape), single(get_f64(shape + SCALE))
    put_units(q_latent, q_rope, shape, token, row, rows)
    syncthreads()
    tiles = (rows + QUERIES - 1) // QUERIES
    i = thread_index()
    while i < tiles * steps * WARP:
        r, step = i // WARP // steps * QUERIES + i % WARP // 4, i // WARP % steps
        d = STEP * (step // 2) + 8 * (i % 4) + 4 * (step % 2)
        factor = get_shared_f32(shared_memory() + SHRINK + 4 * r) * scale
        if r >= rows:
            factor = single(0.0)
        near = row + min(r, rows - 1)
        latent, rope = latent_of(q_latent, shape, token, near), rope_of(q_rope, shape, token, near)
        x = query_number(latent, rope, d, values, shape) * factor
        y = query_number(latent, rope, d + 1, values, shape) * factor
        high0, low0 = split_words(x, y)
        x = query_number(latent, rope, d + 2, values, shape) * factor
        y = query_number(latent, rope, d + 3, values, shape) * factor
        high1, low1 = split_words(x, y)
        store_shared_words(shared_memory() + QUERY_AREA + 16 * i, high0, high1, low0, low1)
        i += THREADS


@device_function_per_dtype
def scores_of(at, width, steps, tiles):  # type: ignore[no-untyped-def]
    """Multiply a quarter's rows by the queries of up to three tiles.

    Shapes: at the lane's eight positions, (8, width) of the kernel's type.
    """
    lane, a, b, c = thread_index() % WARP, no_sums(), no_sums(), no_sums()
    row, right, d = itemsize * width, shared_memory() + QUERY_AREA + 16 * lane, 8 * (lane % 4)
    for _ in range(steps // 2):
        left, place = width - d, at + itemsize * d
        p, q = row_words(place, left), row_words(place + row, left)
        r, s = row_words(place + 2 * row, left), row_words(place + 3 * row, left)
        t, u = row_words(place + 4 * row, left), row_words(place + 5 * row, left)
        v, w = row_words(place + 6 * row, left), row_words(place + 7 * row, left)
        one, two = load_shared_words(right), load_shared_words(right + STEP_BYTES)
        a = add_row_products(a, p, q, r, s, t, u, v, w, one, two)
        if tiles > 1:
            near = right + steps * STEP_BYTES
            one, two = load_shared_words(near), load_shared_words(near + STEP_BYTES)
            b = add_row_products(b, p, q, r, s, t, u, v, w, one, two)
        if tiles > 2:
            near = right + 2 * steps * STEP_BYTES
            one, two = load_shared_words(near), load_shared_words(near + STEP_BYTES)
            c = add_row_products(c, p, q, r, s, t, u, v, w, one, two)
        right += 2 * STEP_BYTES
        d += STEP
    return a, b, c


@device_function_per_dtype
def add_values(a, b, c, right, at, i, last, row, tiles):  # type: ignore[no-untyped-def]
    """Add the products of four positions' values and their probabilities.

    Shapes: at where the lane's eight numbers lie in row 0 of a block; row bytes from row to row; i is the first of the
    four, and rows up to last are there.
    """
    here = load_rows(
        at + min(i, last) * row, at + min(i + 8, last) * row, at + min(i + 1, last) * row, at + min(i + 9, last) * row
    )
    left = left_words(here)
    h0, h1, l0, l1 = load_shared_words(right)
    a = add_product(a, left, h0, h1, l0, l1)
    if tiles > 1:
        h0, h1, l0, l1 = load_shared_words(right + TILE_CHANCES)
        b = add_product(b, left, h0, h1, l0, l1)
    if tiles > 2:
        h0, h1, l0, l1 = load_shared_words(right + 2 * TILE_CHANCES)
        c = add_product(c, left, h0, h1, l0, l1)
    return a, b, c


@device_function_per_dtype
def take_stretch(into: int, latents: int, _: int, shape: int, start: int, fresh: int) -> None:
    """Let a block's rows see a stretch.

    Shapes: into as in ``add_chunk``; latents (blocks, BLOCK, width) of the kernel's type. Sums in float32.
    """
    lane, warp, values = thread_index() % WARP, thread_index() // WARP, values_of(shape)
    rows, end = work(COUNT), work(END)
    width, tiles, first = row_of(shape), (rows + QUERIES - 1) // QUERIES, start + QUARTER * warp
    a, b, c, position, row = no_sums(), no_sums(), no_sums(), first + 8 * (lane // 4), itemsize * width
    if first < end:
        page = get_i32(work(TABLE) + 4 * min(position // BLOCK, (end - 1) // BLOCK))
        a, b, c = scores_of(latents + (page * BLOCK + position % BLOCK) * row, width, steps_of(shape), tiles)
    a, b, c = see(a, 0, position), see(b, 1, position), see(c, 2, position)
    put_maxima(0, a)
    put_maxima(1, b)
    put_maxima(2, c)
    syncthreads()
    a, b, c = chances_of(a, 0), chances_of(b, 1), chances_of(c, 2)
    put_sums(0, a)
    put_sums(1, b)
    put_sums(2, c)
    right = shared_memory() + CHANCES + 3 * TILE_CHANCES * warp + 16 * lane
    put_chances(right, a)
    if tiles > 1:
        put_chances(right + TILE_CHANCES, b)
    if tiles > 2:
        put_chances(right + 2 * TILE_CHANCES, c)
    syncthreads()
    join_stretch(rows)
    position = first + 16 * (lane % 4)
    block = min(position // BLOCK, (end - 1) // BLOCK)
    at, begin = latents + get_i32(work(TABLE) + 4 * block) * BLOCK * row, position - block * BLOCK
    last = min(end - 1 - block * BLOCK, BLOCK - 1)
    for chunk in range((values + CHUNK - 1) // CHUNK):
        a, b, c = no_sums(), no_sums(), no_sums()
        if first < end:
            place = at + itemsize * min(CHUNK * chunk + 8 * (lane // 4), values - 8)
            for i in range(4):
                a, b, c = add_values(a, b, c, right + RIGHT * i, place, begin + 2 * i, last, row, tiles)
        stage_tile(into, a, 0, chunk, rows, get_i64(shape + RANK), fresh)
        if tiles > 1:
            stage_tile(into, b, 1, chunk, rows, get_i64(shape + RANK), fresh)
        if tiles > 2:
            stage_tile(into, c, 2, chunk, rows, get_i64(shape + RANK), fresh)
