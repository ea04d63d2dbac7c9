"""One stretch of attention over a paged cache of int8, which lies as ``pio.kernels.quantized_cache`` says.

Integer products for scores and for values, as on a CPU: queries are quantized by groups of 32, and the scales of values
go into the probabilities, which are quantized to 0..127 by query and block of positions; where every query sees all of
its sequence, by query and span of four blocks, which two warps share.
"""

# numba-cuda comes without type stubs, and tiles are tuples whose lengths depend on the kernel
# pyright: reportUnknownVariableType=false, reportUnnecessaryComparison=false
from __future__ import annotations

from pio.kernels._attention_record import HEAD_DIM, KV_HEADS, SCALE
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import GROUP, PAIR
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._float_attention import CHANCES, query_row
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
    TABLE,
    UNIT,
    WARPS,
    chances_of,
    join_stretch,
    prefetch_lines,
    put_maxima,
    put_sums,
    put_two,
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
    get_shared_word,
    magnitude,
    maximum,
    maximum_or_nan,
    of_bits,
    put_shared_f32,
    put_shared_i8,
    round_to_int,
    shared_memory,
    shuffle_xor,
    single,
    syncthreads,
    thread_index,
)
from pio.kernels.cuda.ptx.fragments import QUERIES, load_rows
from pio.kernels.cuda.ptx.integer_fragments import (
    add_group,
    add_values,
    largest_or_nan,
    load_halves,
    load_singles,
    no_scales,
    put_bytes,
    weigh,
)
from pio.kernels.cuda.ptx.score_tiles import no_sums
from pio.kernels.cuda.quantized_cache import (
    KEY_GROUP,
    KEY_HEADER,
    LARGEST,
    SMALLEST,
    inverse_of,
    scale_bits,
    warp_maximum,
)
from pio.kernels.sizes import BLOCK, KEY_PAIR

LOWEST, HIGHEST = -102, 112  # exponents of queries' scales: the product with any scale of a key is a float32
GROUP_BYTES = 8 * WARP  # of a tile's queries
GROUPS = 16  # of all tiles of a block
SCALES = QUERY_AREA + GROUPS * GROUP_BYTES  # of a row's groups, behind the queries of all tiles
CHANCE_ROW = 2 * BLOCK  # bytes of a query's probabilities in a quarter
CHANCE_TILE = QUERIES * CHANCE_ROW + 4 * 2 * QUERIES  # of a tile, and a scale for each of its two blocks
PEAKS = CHANCES + 2 * WARPS * CHANCE_TILE  # of each warp and row, behind the probabilities of both tiles
load_words_of_rows = load_rows["bfloat16"]
spans = PerDtype(lambda kind: int(kind == "span"))  # whether probabilities are quantized by span


@device_function
def groups_of(n: int) -> int:
    """Groups of numbers of a head."""
    return (n + GROUP - 1) // GROUP


@device_function
def put_group(x: float, r: int, group: int, groups: int, scales: int) -> None:
    """Quantize a group of a row's query, of which each lane of a warp has a number, and lay it out."""
    lane = thread_index() % WARP
    bits = scale_bits(warp_maximum(magnitude(x)), LOWEST, HIGHEST)
    number = round_to_int(x * inverse_of(bits)) if bits >= 0 else 0
    word = (r // QUERIES * groups + group) * GROUP_BYTES + 8 * (4 * (r % QUERIES) + lane % 16 // 4)
    put_shared_i8(shared_memory() + QUERY_AREA + word + 4 * (lane // 16) + lane % 4, number)
    if lane == 0:
        put_shared_f32(scales + 4 * (r * groups + group), of_bits(bits if bits >= 0 else 0x7FC00000))


@device_function
def put_units() -> None:
    """Note that scores of all rows are numbers already, and only become powers of two."""
    if thread_index() < ROWS:
        put_shared_f32(shared_memory() + UNIT + 4 * thread_index(), single(LOG2_E))


@device_function
def put_queries(q: int, q_rope: int, shape: int, token: int, row: int, rows: int) -> None:
    """Quantize the queries of a block, and lay them out as words of right factors; a warp takes a group of a row.

    Shapes: q float32 (T, heads, head_dim), q_rope not used; words (tiles, groups, 32, 2), scales float32 (rows,
    groups).
    """
    lane, n, scale = thread_index() % WARP, get_i64(shape + HEAD_DIM), single(get_f64(shape + SCALE))
    groups, i = groups_of(n), thread_index() // WARP
    padded = (rows + QUERIES - 1) // QUERIES * QUERIES
    while i < padded * groups:
        r, group = i // groups, i % groups
        place, d = q + 4 * n * query_row(shape, token, work(HEAD), row + min(r, rows - 1)), GROUP * group + lane
        x = get_f32(place + 4 * d) * scale if d < n and r < rows else single(0.0)
        put_group(x, r, group, groups, shared_memory() + SCALES)
        i += WARPS
    put_units()


@device_function
def add_tile(sums, numbers, scales, word, scale, groups):  # type: ignore[no-untyped-def]
    """Add the products of a group and the queries of a tile, whose words and scales lie there."""
    return add_group(
        sums, numbers, scales, get_shared_word(word), get_shared_word(word + 4), get_shared_f32(scale),
        get_shared_f32(scale + 4 * groups),
    )  # fmt: skip


@device_function
def scores_of(half: int, o: int, n: int, more: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Multiply a quarter's keys by the queries of one tile, or of two, group by group.

    Shapes: half (pairs, 1088) bytes, half a block, of whose positions the lane's eight begin with o.
    """
    lane, low, high, groups = thread_index() % WARP, no_sums(), no_sums(), groups_of(n)
    word, scale = shared_memory() + QUERY_AREA + 8 * lane, shared_memory() + SCALES + 8 * groups * (lane % 4)
    for group in range(groups):
        pair, g = half + group // 2 * KEY_PAIR, group % 2
        place = pair + KEY_HEADER + g * KEY_GROUP + 4 * OUTPUTS * (lane % 4) + 4 * o
        numbers = load_words_of_rows(place, place + 16, place + 16 * OUTPUTS, place + 16 * OUTPUTS + 16)
        scales = load_halves(pair + 2 * (OUTPUTS * g + o))
        low = add_tile(low, numbers, scales, word, scale, groups)
        if more > 0:
            high = add_tile(high, numbers, scales, word + groups * GROUP_BYTES, scale + 4 * QUERIES * groups, groups)
        word += GROUP_BYTES
        scale += 4
    return low, high


@device_function
def put_peaks(tile: int, weighed) -> None:  # type: ignore[no-untyped-def]
    """Note the largest of a warp's probabilities times scales of values, of the queries of a tile."""
    x, y = largest_or_nan(weighed)
    for bit in range(2, 5):
        x, y = maximum_or_nan(x, shuffle_xor(x, 1 << bit)), maximum_or_nan(y, shuffle_xor(y, 1 << bit))
    put_two(PEAKS, tile, x, y)


@device_function
def span_peak(tile: int, query: int) -> float:
    """The largest that the two warps of a span have noted of a query."""
    first = shared_memory() + PEAKS + 4 * (ROWS * (thread_index() // WARP // 2 * 2) + QUERIES * tile + query)
    return maximum_or_nan(get_shared_f32(first), get_shared_f32(first + 4 * ROWS))


@device_function_per_dtype
def quantize_chances(stage: int, tile: int, weighed) -> None:  # type: ignore[no-untyped-def]
    """Quantize a warp's probabilities times scales of values, by query and block of positions, or by span.

    c = round(127 x / max x), scaled by max x / 127

    Shapes: stage (QUERIES, 2 BLOCK) bytes, and then scales float32 (QUERIES, 2), of the warp's own. By span all warps
    have noted their peaks before.
    """
    lane = thread_index() % WARP
    if spans != 0:  # pyright: ignore[reportUnnecessaryComparison]
        x, y = span_peak(tile, 2 * (lane % 4)), span_peak(tile, 2 * (lane % 4) + 1)
    else:
        x, y = largest_or_nan(weighed)
        for bit in range(2, 4):  # of a block's four octets
            x, y = maximum_or_nan(x, shuffle_xor(x, 1 << bit)), maximum_or_nan(y, shuffle_xor(y, 1 << bit))
    least, top = single(SMALLEST), single(LARGEST)
    place = stage + 2 * (lane % 4) * CHANCE_ROW + 8 * (lane // 4)
    put_bytes(place, weighed, CHANCE_ROW, top / maximum(x, least), top / maximum(y, least))
    if lane // 4 % 4 == 0:
        scale = stage + QUERIES * CHANCE_ROW + 4 * (4 * (lane % 4) + lane // 16)
        put_shared_f32(scale, x * single(1.0 / LARGEST))
        put_shared_f32(scale + 8, y * single(1.0 / LARGEST))


quantize_blocks = quantize_chances["block"]


@device_function
def add_block(sums, words, stage, block):  # type: ignore[no-untyped-def]
    """Add the products of a block's values and a tile's probabilities."""
    lane = thread_index() % WARP
    chance = stage + lane // 4 * CHANCE_ROW + BLOCK * block + 4 * (lane % 4)
    scale = stage + QUERIES * CHANCE_ROW + 4 * (4 * (lane % 4) + block)
    return add_values(
        sums, words, get_shared_word(chance), get_shared_word(chance + 16), get_shared_f32(scale),
        get_shared_f32(scale + 8),
    )  # fmt: skip


@device_function
def block_of(position: int, oldest: int, end: int) -> int:
    """The cache block of a position, or where no row sees it another one that is there."""
    return get_i32(work(TABLE) + 4 * min(max(position // BLOCK, oldest // BLOCK), (end - 1) // BLOCK))


@device_function_per_dtype
def take_stretch(into: int, keys: int, values: int, shape: int, start: int, fresh: int) -> None:
    """Let a block's rows see a stretch.

    Shapes: into as in ``add_chunk``; keys (blocks, kv_heads, key_bytes) and values (blocks, kv_heads, value_bytes);
    positions oldest <= j < end are all that any row sees. Sums of blocks in float32, in order of position. The kind is
    "block" or "span".
    """
    lane, warp, oldest, end = thread_index() % WARP, thread_index() // WARP, work(OLDEST), work(END)
    n, kv_heads, rows = get_i64(shape + HEAD_DIM), get_i64(shape + KV_HEADS), work(COUNT)
    pairs, width, more, first = (n + PAIR - 1) // PAIR, (n + 15) // 16 * 16, rows - QUERIES, start + QUARTER * warp
    value_step = BLOCK * width + 4 * BLOCK
    low, high, scales = no_sums(), no_sums(), no_scales()
    there = first < end and first + QUARTER > oldest
    position = first + 8 * (lane // 4)
    if there:
        head, slot = block_of(position, oldest, end) * kv_heads + work(HEAD), position % BLOCK
        half = keys + (BLOCK // OUTPUTS * head + slot // OUTPUTS) * pairs * KEY_PAIR
        for i in range(QUARTER // BLOCK):
            later = block_of(first + BLOCK * i, oldest, end)
            prefetch_lines(values + (later * kv_heads + work(HEAD)) * value_step, value_step)
        low, high = scores_of(half, slot % OUTPUTS, n, max(more, 0))
        scales = load_singles(values + head * value_step + BLOCK * width + 4 * slot)
    low, high = see(low, 0, position), see(high, 1, position)
    put_maxima(0, low)
    put_maxima(1, high)
    syncthreads()
    stage = shared_memory() + CHANCES + 2 * CHANCE_TILE * warp
    chances = chances_of(low, 0)
    put_sums(0, chances)
    low = weigh(low, chances, scales)
    chances = chances_of(high, 1)
    put_sums(1, chances)
    high = weigh(high, chances, scales)
    if spans != 0:  # pyright: ignore[reportUnnecessaryComparison]
        put_peaks(0, low)
        put_peaks(1, high)
        syncthreads()
    quantize_chances(stage, 0, low)
    if more > 0:
        quantize_chances(stage + CHANCE_TILE, 1, high)
    syncthreads()
    join_stretch(rows)
    here = values + (block_of(first, oldest, end) * kv_heads + work(HEAD)) * value_step
    then = values + (block_of(first + BLOCK, oldest, end) * kv_heads + work(HEAD)) * value_step
    for chunk in range((width + CHUNK - 1) // CHUNK):
        a, b = no_sums(), no_sums()
        if there:
            d = 4 * (width * (lane % 4) + min(CHUNK * chunk + 8 * (lane // 4), width - 8))
            one = load_words_of_rows(here + d, here + d + 16, here + d + 16 * width, here + d + 16 * width + 16)
            two = load_words_of_rows(then + d, then + d + 16, then + d + 16 * width, then + d + 16 * width + 16)
            a = add_block(add_block(a, one, stage, 0), two, stage, 1)
            if more > 0:
                b = add_block(add_block(b, one, stage + CHANCE_TILE, 0), two, stage + CHANCE_TILE, 1)
        stage_tile(into, a, 0, chunk, rows, n, fresh)
        if more > 0:
            stage_tile(into, b, 1, chunk, rows, n, fresh)
