"""One stretch of latent attention over a paged cache of int8, which lies as ``pio.kernels.quantized_latent`` says.

Integer products for scores and for values, of the same bytes: all groups of a latent have one scale, which goes into
the probabilities, and four positions' four numbers are turned around in registers.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
from __future__ import annotations

from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import GROUP, PAIR
from pio.kernels._latent_record import RANK, ROPE_DIM, SCALE
from pio.kernels.cuda._float_latent import latent_of, query_number, rope_of
from pio.kernels.cuda._jit import device_function
from pio.kernels.cuda._stretches import (
    CHUNK,
    COUNT,
    END,
    QUARTER,
    QUERY_AREA,
    TABLE,
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
    as_f16,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    magnitude,
    maximum,
    maximum_or_nan,
    of_bits,
    put_u8,
    round_to_int,
    shared_memory,
    single,
    store,
    syncthreads,
    thread_index,
)
from pio.kernels.cuda.ptx.fragments import QUERIES, load_rows
from pio.kernels.cuda.ptx.integer_fragments import load_halves, load_turned, no_scales, weigh
from pio.kernels.cuda.ptx.score_tiles import no_sums
from pio.kernels.cuda.quantized_attention import (
    CHANCE_TILE,
    GROUP_BYTES,
    add_block,
    add_tile,
    put_group,
    put_units,
    quantize_blocks,
)
from pio.kernels.cuda.quantized_cache import (
    KEY_GROUP,
    KEY_HEADER,
    LARGEST,
    number_or_zero,
    warp_maximum,
)
from pio.kernels.sizes import BLOCK, KEY_PAIR

LATENT_GROUPS = 3 * 54  # of all tiles of a block
SCALES = QUERY_AREA + LATENT_GROUPS * GROUP_BYTES  # of a row's groups
CHANCES = SCALES + 4 * QUERIES * LATENT_GROUPS
HALVES = BLOCK // OUTPUTS
LEAST = 2.0**-24  # the smallest scale that float16 has
load_words_of_rows, put_f16 = load_rows["bfloat16"], store["float16"]


@device_function
def value_pairs_of(shape: int) -> int:
    """Pairs of groups that hold a latent."""
    return (get_i64(shape + RANK) + PAIR - 1) // PAIR


@device_function
def all_pairs_of(shape: int) -> int:
    """Pairs of groups that hold a latent and a key."""
    return value_pairs_of(shape) + (get_i64(shape + ROPE_DIM) + PAIR - 1) // PAIR


@device_function
def put_queries(q_latent: int, q_rope: int, shape: int, token: int, row: int, rows: int) -> None:
    """Quantize the queries of a block, and lay them out as words of right factors; a warp takes a group of a row.

    Shapes: words (tiles, groups, 32, 2), scales float32 (rows, groups).
    """
    lane, scale, width = thread_index() % WARP, single(get_f64(shape + SCALE)), PAIR * value_pairs_of(shape)
    groups, i = 2 * all_pairs_of(shape), thread_index() // WARP
    padded = (rows + QUERIES - 1) // QUERIES * QUERIES
    while i < padded * groups:
        r, group = i // groups, i % groups
        near = row + min(r, rows - 1)
        latent, rope = latent_of(q_latent, shape, token, near), rope_of(q_rope, shape, token, near)
        x = query_number(latent, rope, GROUP * group + lane, width, shape) * scale
        if r >= rows:
            x = single(0.0)
        put_group(x, r, group, groups, shared_memory() + SCALES)
        i += WARPS
    put_units()


@device_function
def scores_of(half, o, groups, tiles):  # type: ignore[no-untyped-def]
    """Multiply a quarter's rows by the queries of up to three tiles, group by group.

    Shapes: half (pairs, 1088) bytes, half a block, of whose positions the lane's eight begin with o.
    """
    lane, a, b, c = thread_index() % WARP, no_sums(), no_sums(), no_sums()
    word, scale = shared_memory() + QUERY_AREA + 8 * lane, shared_memory() + SCALES + 8 * groups * (lane % 4)
    for group in range(groups):
        pair, g = half + group // 2 * KEY_PAIR, group % 2
        place = pair + KEY_HEADER + g * KEY_GROUP + 4 * OUTPUTS * (lane % 4) + 4 * o
        numbers = load_words_of_rows(place, place + 16, place + 16 * OUTPUTS, place + 16 * OUTPUTS + 16)
        scales = load_halves(pair + 2 * (OUTPUTS * g + o))
        a = add_tile(a, numbers, scales, word, scale, groups)
        if tiles > 1:
            b = add_tile(b, numbers, scales, word + groups * GROUP_BYTES, scale + 4 * QUERIES * groups, groups)
        if tiles > 2:
            c = add_tile(c, numbers, scales, word + 2 * groups * GROUP_BYTES, scale + 8 * QUERIES * groups, groups)
        word += GROUP_BYTES
        scale += 4
    return a, b, c


@device_function
def values_of(block: int, pair: int, pairs: int) -> tuple[int, ...]:
    """The lane's eight numbers of a pair of a block, as left factors whose sums run over positions."""
    lane = thread_index() % WARP
    place = block + pair * KEY_PAIR + KEY_HEADER + lane // 16 * KEY_GROUP
    place += 2 * 4 * OUTPUTS * (lane // 4 % 4) + 16 * (lane % 4)
    then = place + pairs * KEY_PAIR
    return load_turned(place, place + 4 * OUTPUTS, then, then + 4 * OUTPUTS)


@device_function
def take_stretch(into: int, latents: int, _: int, shape: int, start: int, fresh: int) -> None:
    """Let a block's rows see a stretch.

    Shapes: into as in ``add_chunk``; latents (blocks, 2, pairs, 1088) bytes. Sums of blocks in float32, in order.
    """
    lane, warp, pairs = thread_index() % WARP, thread_index() // WARP, all_pairs_of(shape)
    rows, end = work(COUNT), work(END)
    tiles, first, size = (rows + QUERIES - 1) // QUERIES, start + QUARTER * warp, HALVES * pairs * KEY_PAIR
    a, b, c, scales, position = no_sums(), no_sums(), no_sums(), no_scales(), first + 8 * (lane // 4)
    final = (end - 1) // BLOCK
    if first < end:
        slot = position % BLOCK
        half = (
            latents
            + get_i32(work(TABLE) + 4 * min(position // BLOCK, final)) * size
            + slot // OUTPUTS * pairs * KEY_PAIR
        )
        a, b, c = scores_of(half, slot % OUTPUTS, 2 * pairs, tiles)
        scales = load_halves(half + 2 * (slot % OUTPUTS))
    a, b, c = see(a, 0, position), see(b, 1, position), see(c, 2, position)
    put_maxima(0, a)
    put_maxima(1, b)
    put_maxima(2, c)
    syncthreads()
    stage = shared_memory() + CHANCES + 3 * CHANCE_TILE * warp
    chances = chances_of(a, 0)
    put_sums(0, chances)
    quantize_blocks(stage, 0, weigh(a, chances, scales))
    chances = chances_of(b, 1)
    put_sums(1, chances)
    if tiles > 1:
        quantize_blocks(stage + CHANCE_TILE, 1, weigh(b, chances, scales))
    chances = chances_of(c, 2)
    put_sums(2, chances)
    if tiles > 2:
        quantize_blocks(stage + 2 * CHANCE_TILE, 2, weigh(c, chances, scales))
    syncthreads()
    join_stretch(rows)
    here = latents + get_i32(work(TABLE) + 4 * min(first // BLOCK, final)) * size
    then = latents + get_i32(work(TABLE) + 4 * min(first // BLOCK + 1, final)) * size
    n = get_i64(shape + RANK)
    for chunk in range((n + CHUNK - 1) // CHUNK):
        a, b, c = no_sums(), no_sums(), no_sums()
        if first < end:
            one, two = values_of(here, chunk, pairs), values_of(then, chunk, pairs)
            a = add_block(add_block(a, one, stage, 0), two, stage, 1)
            if tiles > 1:
                b = add_block(add_block(b, one, stage + CHANCE_TILE, 0), two, stage + CHANCE_TILE, 1)
            if tiles > 2:
                c = add_block(add_block(c, one, stage + 2 * CHANCE_TILE, 0), two, stage + 2 * CHANCE_TILE, 1)
        stage_tile(into, a, 0, chunk, rows, n, fresh)
        if tiles > 1:
            stage_tile(into, b, 1, chunk, rows, n, fresh)
        if tiles > 2:
            stage_tile(into, c, 2, chunk, rows, n, fresh)


@device_function
def store_numbers(pair: int, o: int, x: int, n: int, bad: bool, lane: int) -> bool:
    """Quantize a vector of one position with one scale, and put it into its half of a block; a warp does it.

    scale = max |x| / 127 rounded to float16, q = round(x / scale), 127 at most; stored as q + 128

    Shapes: as in ``pio.kernels.quantized_latent.store_numbers``. With bad, or where x holds what is no number, or too
    large a one, the scale is none, which is returned.
    """
    most, i = single(0.0), lane
    while i < n:
        v = get_f32(x + 4 * i)
        most = maximum_or_nan(most, magnitude(v) + (v - v))
        i += WARP
    groups = 2 * ((n + PAIR - 1) // PAIR)
    wanted = single(float(warp_maximum(most)) * (1.0 / LARGEST)) + (of_bits(0x7FC00000) if bad else single(0.0))
    scale = as_f16(wanted)
    if scale == single(0.0):
        scale = single(LEAST)
    inverse = single(1.0 / float(scale))
    for group in range(groups):
        if lane == 0:
            put_f16(pair + group // 2 * KEY_PAIR + 2 * (OUTPUTS * (group % 2) + o), scale)
        v, top = number_or_zero(x, GROUP * group + lane, n) * inverse, single(LARGEST)
        v = maximum(v, single(-LARGEST))
        v = v if v < top else top
        at = pair + group // 2 * KEY_PAIR + KEY_HEADER + group % 2 * KEY_GROUP
        put_u8(at + 4 * OUTPUTS * (lane // 4) + 4 * o + lane % 4, round_to_int(v) + 128)
    return not (scale - scale == single(0.0))


@device_function
def store_position(
    latents: int, page: int, slot: int, latent: int, key: int, rank: int, rope_dim: int, lane: int
) -> None:
    """Put the latent and the shared key of a position into their block, quantized.

    Shapes: latent float32 (rank,); key float32 (rope_dim,); latents as in ``take_stretch``; slot < BLOCK.
    """
    value_pairs, o = (rank + PAIR - 1) // PAIR, slot % OUTPUTS
    pairs = value_pairs + (rope_dim + PAIR - 1) // PAIR
    half = latents + (page * HALVES + slot // OUTPUTS) * pairs * KEY_PAIR
    bad = store_numbers(half + value_pairs * KEY_PAIR, o, key, rope_dim, False, lane)
    store_numbers(half, o, latent, rank, bad, lane)  # a bad key spoils its value too
