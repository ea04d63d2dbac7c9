"""Latent attention over a paged cache of int8: integer dot products for scores and for values, of the same bytes.

A cache block is two packed halves of 16 positions in the format int8 of ``_formats``: a position is an output, the
numbers of its latent are inputs, then those of the shared key, both filled up with zeros to whole pairs of groups. All
groups of a latent have one scale, so that its numbers serve as values too: the scales go into the probabilities, which
are quantized to 0..127 by query and block. A tile of values turns sixteen positions of sixteen numbers around in
registers, once for all of its queries. ``latent_attention`` walks the blocks.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import GROUP, PAIR, RECORD, START
from pio.kernels._jit import kernel
from pio.kernels._latent_shape import HEAD_LATENT, HEAD_ROPE, RANK, ROPE_DIM, SCALE, take_query
from pio.kernels._partial_vectors import load_up_to
from pio.kernels._quartered_values import emit_latents
from pio.kernels._quarters import ARM
from pio.kernels._rows import fill_f32, scale_row
from pio.kernels.quantize import quantize_row
from pio.kernels.quantized_attention import advance, block_maxima, quantize_chances, weigh_rows
from pio.kernels.quantized_cache import KEY_GROUP, KEY_HEADER, LARGEST
from pio.kernels.quantized_tiles import DOT, DOTS, I8X64, quantized_tile
from pio.kernels.simd import (
    LANES,
    MAGIC,
    VEC,
    WIDE,
    Vec,
    get_f16,
    get_f64,
    get_i64,
    int64,
    load_f16_lanes,
    load_f32,
    max_lanes,
    maximum,
    minimum,
    primitive,
    put_f16,
    splat,
    store_f32,
    sum_lanes,
    void,
)
from pio.kernels.sizes import BLOCK, CHANCE, KEY_PAIR, ROWS
from pio.kernels.tiles import prefetch

BIG, FEW = (10, 4) if WIDE else (4, 2)  # rows of a tile; half of twenty heads are one
LEAST: Final = 2.0**-24  # the smallest scale that float16 has
HALVES: Final = BLOCK // OUTPUTS

quantize_row_int8 = quantize_row["int8"]
big_scores, few_scores, one_scores = (quantized_tile(rows)["int8"] for rows in (BIG, FEW, 1))


def _emit_put_quarter(b: Any, address: Any, v: Any) -> None:
    whole = b.bitcast(b.fadd(v, ll.constant(MAGIC)), ll.I32X16)  # a NaN is some byte
    fours = b.bitcast(b.trunc(whole, ir.VectorType(ll.I8, LANES)), ir.VectorType(ll.I32, 4))
    for q in range(4):
        ll.store(b, ll.at(b, address, (4 * OUTPUTS, q)), b.extract_element(fours, ir.Constant(ll.I32, q)), 4)


@primitive(void, int64, VEC, emit=_emit_put_quarter)
def put_quarter(address: int, v: Vec) -> None:
    """Write sixteen lanes from 0 to 255 as bytes, rounded to nearest: four by four, each four 64 bytes further on."""
    for i, x in enumerate(v):
        byte = round(x) & 255 if math.isfinite(x) else 0
        ctypes.c_uint8.from_address(address + 4 * OUTPUTS * (i // 4) + i % 4).value = byte


@kernel
def store_numbers(pair: int, o: int, x: int, n: int, start: float) -> None:
    """Quantize a vector of one position with one scale, and put it into its half of a block.

    scale = max |x| / 127 rounded to float16, q = round(x / scale), 127 at most; stored as q + 128

    Shapes: x float32 (n,); pair (ceil(n / 64), 1088) bytes; o < 16. What is behind n becomes zero. start is 0, or what
    is no number, which the scale becomes then; it does so too where x holds such.
    """
    zero, most, total = splat(0.0), splat(0.0), splat(0.0)
    for i in range(0, n, LANES):
        v = load_up_to(x + 4 * i, n - i)
        most, total = maximum(most, maximum(v, zero - v)), total + (v - v)
    put_f16(pair + 2 * o, (max_lanes(most) + sum_lanes(total)) * (1.0 / LARGEST) + start)
    if get_f16(pair + 2 * o) == 0.0:
        put_f16(pair + 2 * o, LEAST)
    scale = get_f16(pair + 2 * o)
    inverse, top = splat(1.0 / scale), splat(LARGEST)
    for i in range(0, (n + PAIR - 1) // PAIR * PAIR, LANES):
        v = load_up_to(x + 4 * i, n - i)
        at, g = pair + i // PAIR * KEY_PAIR, i % PAIR // GROUP
        put_f16(at + 2 * (OUTPUTS * g + o), scale)
        place = at + KEY_HEADER + g * KEY_GROUP + 4 * OUTPUTS * (i % GROUP // 4) + 4 * o
        put_quarter(place, minimum(maximum(v * inverse, zero - top), top) + splat(128.0))


def _turned(b: Any, at: Any) -> list[Any]:
    """Sixteen positions' four numbers in each of four vectors -> sixteen numbers' four positions, as signed bytes."""
    undef, sign = ir.Constant(I8X64, ir.Undefined), ir.Constant(I8X64, [128] * 64)
    inside = [16 * lane + 4 * j + i for lane in range(4) for i in range(4) for j in range(4)]
    index = ir.Constant(ir.VectorType(ll.I32, 64), inside)
    vectors: list[Any] = []
    for q in range(4):
        raw = b.xor(ll.load(b, ll.at(b, at, (64, q)), I8X64, 1), sign)
        vectors.append(b.bitcast(b.shuffle_vector(raw, undef, index), ll.I32X16))

    def lanes(x: Any, y: Any, *which: int) -> Any:
        return b.shuffle_vector(x, y, ir.Constant(ll.I32X16, [4 * lane + i for lane in which for i in range(4)]))

    low, high = ([lanes(*vectors[i : i + 2], s, s + 1, s + 4, s + 5) for i in (0, 2)] for s in (0, 2))
    turned = [lanes(*two, s, s + 2, s + 4, s + 6) for two in (low, high) for s in (0, 1)]
    return [b.bitcast(v, I8X64) for v in turned]


@cache
def latents_tile(rows: int, dot: str = DOT) -> Callable[..., None]:
    """Return the tile ``acc[r, d] += scale[r] * sum_j p[r, j] * v[j, d]`` for fixed rows and one block of positions.

    The tile takes ``(acc, p, v, pairs, half)``: addresses of float32 (rows, 64 * pairs), of quantized probabilities and
    of a block, pairs of groups of a latent, and the bytes of half a block. Exact sums within a block.
    """

    def emit(b: Any, acc: Any, p: Any, v: Any, pairs: Any, half: Any) -> None:
        product = DOTS[dot]
        scales = [ll.splat(b, ll.load(b, ll.at(b, p, (CHANCE * r + BLOCK, 1)), ll.F32, 4)) for r in range(rows)]
        width = b.mul(pairs, ll.i64_const(PAIR))
        with cgutils.for_range(b, b.mul(pairs, ll.i64_const(PAIR // LANES)), intp=ll.I64) as loop:
            pair, quarter = b.lshr(loop.index, ll.i64_const(2)), b.and_(loop.index, ll.i64_const(3))
            at = ll.at(b, v, (pair, KEY_PAIR), (quarter, LANES * OUTPUTS), (KEY_HEADER, 1))
            sums = [ir.Constant(ll.I32X16, [0] * LANES)] * rows
            for h in range(HALVES):
                for four, values in enumerate(_turned(b, ll.at(b, at, (half, h)))):
                    for r in range(rows):
                        chances = ll.load(b, ll.at(b, p, (CHANCE * r + OUTPUTS * h + 4 * four, 1)), ll.I32, 4)
                        sums[r] = product(b, sums[r], b.bitcast(ll.splat(b, chances), I8X64), values, 4)
            for r in range(rows):
                place = ll.at(b, acc, (width, 4 * r), (loop.index, 4 * LANES))
                total = ll.fma(b, b.sitofp(sums[r], ll.F32X16), scales[r], ll.load_as(b, place, "float32"))
                ll.store(b, place, total, 4)

    @primitive(void, *[int64] * 5, emit=partial(emit_latents, rows, dot) if dot in ARM else emit)
    def tile(acc: int, p: int, v: int, pairs: int, half: int) -> None:
        for r in range(rows):
            chances = (ctypes.c_uint8 * BLOCK).from_address(p + CHANCE * r)
            scale = ctypes.c_float.from_address(p + CHANCE * r + BLOCK).value
            sums = (ctypes.c_float * (PAIR * pairs)).from_address(acc + 4 * r * PAIR * pairs)
            for d in range(PAIR * pairs):
                at = v + d // PAIR * KEY_PAIR + KEY_HEADER + d % PAIR // 4 * 4 * OUTPUTS + d % 4
                seen = [j for j in range(BLOCK) if chances[j]]
                places = [at + j // OUTPUTS * half + j % OUTPUTS * 4 for j in seen]
                numbers = [ctypes.c_uint8.from_address(place).value - 128 for place in places]
                sums[d] = sums[d] + scale * sum(chances[j] * x for j, x in zip(seen, numbers, strict=True))

    return tile


big_values, few_values, one_values = latents_tile(BIG), latents_tile(FEW), latents_tile(1)


@kernel
def score_rows(scores: int, q: int, block: int, rows: int, pairs: int, half: int, after: int) -> None:
    """Multiply quantized queries by a cache block.

    scores[r, j] = q[r] . block[j]

    Shapes: scores float32 (rows, BLOCK); q (rows, 16 + 80 pairs) bytes; block (2, pairs, 1088) bytes, half of it half
    bytes. Sums as in ``quantized_tiles``. The first half of the block at ``after`` is asked for.
    """
    row = START + pairs * RECORD
    for h in range(HALVES):
        at, at_keys, r = scores + 4 * OUTPUTS * h, block + h * half, 0
        prefetch(after + h * (half // HALVES), half // HALVES)
        while r < rows:
            place, at_q, left = at + 4 * r * BLOCK, q + r * row, rows - r
            if left >= BIG:
                big_scores(place, at_q, at_keys, pairs, BLOCK, OUTPUTS, 0)
                r += BIG
            elif left >= FEW:
                few_scores(place, at_q, at_keys, pairs, BLOCK, OUTPUTS, 0)
                r += FEW
            else:
                one_scores(place, at_q, at_keys, pairs, BLOCK, OUTPUTS, 0)
                r += 1


@kernel
def add_latents(acc: int, chances: int, block: int, rows: int, pairs: int, half: int) -> None:
    """Add a cache block's latents, weighted by quantized probabilities.

    acc[r] += sum_j p[r, j] * latent[j]

    Shapes: acc float32 (rows, 64 * pairs); chances (rows, 48) bytes; block as in ``score_rows``, of which the first
    pairs count.
    """
    r = 0
    while r < rows:
        place, at, left = acc + 4 * r * PAIR * pairs, chances + CHANCE * r, rows - r
        if left >= BIG:
            big_values(place, at, block, pairs, half)
            r += BIG
        elif left >= FEW:
            few_values(place, at, block, pairs, half)
            r += FEW
        else:
            one_values(place, at, block, pairs, half)
            r += 1


@kernel
def value_pairs_of(shape: int) -> int:
    """Return how many pairs of groups hold a latent.

    Shapes: shape int64, the record of ``_latent_shape``.
    """
    return (get_i64(shape + RANK) + PAIR - 1) // PAIR


@kernel
def all_pairs_of(shape: int) -> int:
    """Return how many pairs of groups hold a latent and a key.

    Shapes: shape int64, the record of ``_latent_shape``.
    """
    return value_pairs_of(shape) + (get_i64(shape + ROPE_DIM) + PAIR - 1) // PAIR


@kernel
def begin_rows(work: int, rows: int, shape: int) -> None:
    """Have seen nothing yet: outputs are zero, so are sums, and the largest score is below every number.

    Shapes: work (int8_latent_bytes,), whose parts are outputs float32 (ROWS, 64 value_pairs), sums float32 (ROWS, 16),
    scores float32 (ROWS, BLOCK), probabilities (ROWS, 48) bytes, the state of ``advance`` float32 (5, ROWS), largest
    probabilities float32 (ROWS, 16), scales float32 (BLOCK,), queries (ROWS, 16 + 80 pairs) bytes and a scaled query.
    """
    width = PAIR * value_pairs_of(shape)
    sums = work + 4 * ROWS * width
    state = sums + ROWS * (4 * LANES + 4 * BLOCK + CHANCE)
    fill_f32(work, rows * width, 0.0)
    fill_f32(sums, ROWS * LANES, 0.0)
    fill_f32(state, 2 * ROWS, -math.inf)


@kernel
def queries_of(work: int, shape: int) -> int:
    """Return where the quantized queries lie in ``work``.

    Shapes: work as in ``begin_rows``.
    """
    state = work + ROWS * (4 * PAIR * value_pairs_of(shape) + 4 * LANES + 4 * BLOCK + CHANCE)
    return state + 4 * ROWS * (5 + LANES) + 4 * BLOCK


@kernel
def put_queries(work: int, first: int, count: int, latent: int, rope: int, shape: int) -> None:
    """Take in the queries of some rows, times the factor of scores, quantized.

    Shapes: latent float32 (count, rank) and rope float32 (count, rope_dim), gaps as shape says, of the rows from
    ``first`` on; work as in ``begin_rows``.
    """
    width, rope_dim, record = (
        PAIR * value_pairs_of(shape),
        get_i64(shape + ROPE_DIM),
        START + all_pairs_of(shape) * RECORD,
    )
    queries = queries_of(work, shape)
    scaled = queries + ROWS * record
    rank, scale = get_i64(shape + RANK), get_f64(shape + SCALE)
    for r in range(count):
        at_latent, at_rope = latent + 4 * r * get_i64(shape + HEAD_LATENT), rope + 4 * r * get_i64(shape + HEAD_ROPE)
        take_query(scaled, at_latent, at_rope, rank, width, rope_dim, scale)
        quantize_row_int8(queries + (first + r) * record, scaled, width + rope_dim)


@kernel
def take_block(work: int, latents: int, page: int, after: int, at: int, tokens: int, heads: int, shape: int) -> None:
    """Let all rows see a cache block.

    Shapes: work as in ``begin_rows``; latents (blocks, 2, pairs, 1088) bytes; page and after count this block and the
    next; at is how far the first token's position is behind the block's first. Sums in float32.
    """
    value_pairs, pairs, rows = value_pairs_of(shape), all_pairs_of(shape), tokens * heads
    half, width = pairs * KEY_PAIR, PAIR * value_pairs
    here, following = latents + page * HALVES * half, latents + after * HALVES * half
    sums = work + 4 * ROWS * width
    scores = sums + 4 * ROWS * LANES
    chances = scores + 4 * ROWS * BLOCK
    state = chances + ROWS * CHANCE  # (5, ROWS)
    peaks = state + 4 * 5 * ROWS  # (ROWS, 16)
    scales = peaks + 4 * ROWS * LANES
    score_rows(scores, queries_of(work, shape), here, rows, pairs, half, following)
    block_maxima(state + 4 * ROWS, scores, at, 0, 0, 1, tokens, heads)
    advance(state)
    store_f32(scales, load_f16_lanes(here))
    store_f32(scales + 4 * LANES, load_f16_lanes(here + half))
    weigh_rows(scores, work, sums, peaks, state, scales, at, 0, 0, tokens, heads, width)
    quantize_chances(chances, scores, peaks, state, rows)
    prefetch(following + half, half)
    add_latents(work, chances, here, rows, value_pairs, half)


@kernel
def finish_rows(out: int, work: int, first: int, count: int, shape: int) -> None:
    """Write what attention gives for some rows.

    Shapes: out float32 (count, rank), of the rows from ``first`` on; work as in ``begin_rows``.
    """
    rank, width = get_i64(shape + RANK), PAIR * value_pairs_of(shape)
    sums = work + 4 * ROWS * width
    for r in range(count):
        total = sum_lanes(load_f32(sums + 4 * (first + r) * LANES))  # zero where all scores are below every number
        factor = 1.0 / total if total != 0.0 else math.nan
        scale_row(out + 4 * r * rank, work + 4 * (first + r) * width, rank, factor)


@kernel
def store_position(latents: int, page: int, slot: int, latent: int, key: int, rank: int, rope_dim: int) -> None:
    """Put the latent and the shared key of a position into their block, quantized.

    Shapes: latent float32 (rank,); key float32 (rope_dim,); latents, page as in ``take_block``; slot < BLOCK.
    """
    value_pairs, o = (rank + PAIR - 1) // PAIR, slot % OUTPUTS
    pairs = value_pairs + (rope_dim + PAIR - 1) // PAIR
    half = latents + (page * HALVES + slot // OUTPUTS) * pairs * KEY_PAIR
    shared = half + value_pairs * KEY_PAIR
    store_numbers(shared, o, key, rope_dim, 0.0)
    scale = get_f16(shared + 2 * o)
    store_numbers(half, o, latent, rank, scale - scale)  # a bad key spoils its value too
