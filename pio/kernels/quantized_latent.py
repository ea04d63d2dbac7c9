"""Latent attention over a paged cache of int8: integer dot products for scores and for values, of the same bytes.

A cache block is two packed halves of 16 positions in the format int8 of ``_formats``: a position is an output, the
numbers of its latent are inputs, then those of the shared key, both filled up with zeros to whole pairs of groups. All
groups of a latent have one scale, so that its numbers serve as values too: the scales go into the probabilities, which
are quantized to 0..127 by query and block. A tile of values turns sixteen positions of sixteen numbers around in
registers, once for all of its queries. Blocks are walked in order of position.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._edges import load_up_to
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import GROUP, PAIR, RECORD, START
from pio.kernels._jit import kernel
from pio.kernels.attention import fill_f32, scale_row, turn_of
from pio.kernels.latent_attention import heads_of_piece, take_query
from pio.kernels.parallel import parallel_kernel
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
    get_i32,
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
from pio.kernels.sizes import BLOCK, CHANCE, KEY_PAIR, PARTS, ROWS
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
    product = DOTS[dot]

    def emit(b: Any, acc: Any, p: Any, v: Any, pairs: Any, half: Any) -> None:
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

    @primitive(void, *[int64] * 5, emit=emit)
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
def attend_blocks(
    acc: int, sums: int, queries: int, scratch: int, latents: int, table: int, position: int, tokens: int, heads: int,
    value_pairs: int, pairs: int,
) -> None:  # fmt: skip
    """Walk a sequence's blocks with quantized queries of a few of its tokens, the first of which is at ``position``.

    Leaves in acc sum_j exp(q . latents[j] - m) * latents[j] over j up to the query's own position, where m is the
    largest of these scores, and in the sixteen lanes of sums the sum of the exponentials.

    Shapes: queries (tokens * heads, 16 + 80 pairs) bytes; acc float32 (tokens * heads, 64 * value_pairs); sums float32
    (ROWS, 16); scratch float32 (ROWS, BLOCK + 12 + 5 + 16) and (BLOCK,); latents (blocks, 2, pairs, 1088) bytes; table
    int32 (blocks of the sequence,). tokens * heads <= ROWS. Sums in float32.
    """
    rows, end, half, width = tokens * heads, position + tokens, pairs * KEY_PAIR, PAIR * value_pairs
    scores, chances = scratch, scratch + 4 * ROWS * BLOCK
    state = chances + ROWS * CHANCE  # (5, ROWS)
    peaks = state + 4 * 5 * ROWS  # (ROWS, 16)
    scales = peaks + 4 * ROWS * LANES
    fill_f32(acc, rows * width, 0.0)
    fill_f32(sums, ROWS * LANES, 0.0)
    fill_f32(state, 2 * ROWS, -math.inf)
    for block in range((end - 1) // BLOCK + 1):
        at = latents + get_i32(table + 4 * block) * HALVES * half
        after, behind = at, position - block * BLOCK
        if block * BLOCK + BLOCK < end:
            after = latents + get_i32(table + 4 * block + 4) * HALVES * half
        score_rows(scores, queries, at, rows, pairs, half, after)
        block_maxima(state + 4 * ROWS, scores, behind, 0, 0, 1, tokens, heads)
        advance(state)
        store_f32(scales, load_f16_lanes(at))
        store_f32(scales + 4 * LANES, load_f16_lanes(at + half))
        weigh_rows(scores, acc, sums, peaks, state, scales, behind, 0, 0, tokens, heads, width)
        quantize_chances(chances, scores, peaks, state, rows)
        prefetch(after + half, half)
        add_latents(acc, chances, at, rows, value_pairs, half)


@parallel_kernel(parts_per_thread=PARTS)
def quantized_latent_attention(
    out: int,
    q_latent: int,
    q_rope: int,
    latents: int,
    tables: int,
    starts: int,
    past: int,
    scratch: int,
    scratch_stride: int,
    sequences: int,
    ld_latent: int,
    head_latent: int,
    ld_rope: int,
    head_rope: int,
    ldt: int,
    heads: int,
    rank: int,
    value_pairs: int,
    rope_dim: int,
    scale: float,
    part: int,
    parts: int,
) -> None:
    """Attend for a batch of sequences over their paged latents of int8, pieces of work dealt to the parts in turn.

    out[t, h] = softmax(scale * (q_latent[t, h] . latent[j] + q_rope[t, h] . key[j]), j <= position of t) @ latent[j]

    Shapes: as in ``latent_attention``, but latents (blocks, block_bytes) and value_pairs = pairs_of(rank); scratch
    (parts, scratch_stride) bytes. A piece is up to ROWS queries of a sequence. Sums in float32.
    """
    pairs, width, groups = value_pairs + (rope_dim + PAIR - 1) // PAIR, PAIR * value_pairs, 0
    token_step, record = max(1, ROWS // heads), START + pairs * RECORD
    for s in range(sequences):
        groups += (get_i32(starts + 4 * s + 4) - get_i32(starts + 4 * s) + token_step - 1) // token_step
    head_step = heads_of_piece(heads, groups, max(1, parts // PARTS), ROWS)
    acc = (scratch + part * scratch_stride + 63) // 64 * 64
    sums = acc + 4 * ROWS * width
    queries = sums + 4 * ROWS * LANES
    row = queries + ROWS * record
    rest = row + 4 * (width + rope_dim)
    piece, turn = -1, turn_of(part, parts)
    for s in range(sequences):
        first, last, before = get_i32(starts + 4 * s), get_i32(starts + 4 * s + 4), get_i32(past + 4 * s)
        for t in range(first, last, token_step):
            tokens = min(token_step, last - t)
            for h in range(0, heads, head_step):
                piece += 1
                if piece % parts != turn:
                    continue
                count, table, at = min(head_step, heads - h), tables + 4 * s * ldt, before + t - first
                for r in range(tokens * count):
                    token, head = t + r // count, h + r % count
                    latent = q_latent + 4 * (token * ld_latent + head * head_latent)
                    rope = q_rope + 4 * (token * ld_rope + head * head_rope)
                    take_query(row, latent, rope, rank, width, rope_dim, scale)
                    quantize_row_int8(queries + r * record, row, width + rope_dim)
                attend_blocks(acc, sums, queries, rest, latents, table, at, tokens, count, value_pairs, pairs)
                for r in range(tokens * count):
                    place = out + 4 * ((t + r // count) * heads + h + r % count) * rank
                    total = sum_lanes(load_f32(sums + 4 * r * LANES))  # zero where all scores are below every number
                    scale_row(place, acc + 4 * r * width, rank, 1.0 / total if total != 0.0 else math.nan)


@parallel_kernel
def write_quantized_latents(
    latents: int,
    latent: int,
    key: int,
    tables: int,
    starts: int,
    past: int,
    sequences: int,
    ld_latent: int,
    ld_key: int,
    ldt: int,
    rank: int,
    value_pairs: int,
    rope_dim: int,
    part: int,
    parts: int,
) -> None:
    """Store the latents and shared keys of a batch in the blocks of its sequences, split by tokens.

    latents[table[p // BLOCK], p % BLOCK] = (latent[t], key[t])

    Shapes: latent float32 (T, rank), token stride ld_latent; key float32 (T, rope_dim), ld_key; the others as in
    ``quantized_latent_attention``.
    """
    pairs, total = value_pairs + (rope_dim + PAIR - 1) // PAIR, get_i32(starts + 4 * sequences)
    begin, end = part * total // parts, (part + 1) * total // parts
    for s in range(sequences):
        first, last, before = get_i32(starts + 4 * s), get_i32(starts + 4 * s + 4), get_i32(past + 4 * s)
        for t in range(max(first, begin), min(last, end)):
            at = before + t - first
            page, slot = get_i32(tables + 4 * (s * ldt + at // BLOCK)), at % BLOCK
            half = latents + (page * HALVES + slot // OUTPUTS) * pairs * KEY_PAIR
            shared, o = half + value_pairs * KEY_PAIR, slot % OUTPUTS
            store_numbers(shared, o, key + 4 * t * ld_key, rope_dim, 0.0)
            scale = get_f16(shared + 2 * o)
            store_numbers(half, o, latent + 4 * t * ld_latent, rank, scale - scale)  # a bad key spoils its value too
