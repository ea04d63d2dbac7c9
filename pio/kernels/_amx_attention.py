"""Attention over int8 by AMX: scores and sums of values of sixteen queries at a time.

Sums of products come by way of memory, as in ``_amx_tile``, those of the next keys or numbers while the last ones are
scaled. Keys are stored as bytes 128 larger: what that adds up to, which depends on a query and a group alone, is in the
tiles that the products are added to. Bits are those of ``quantized_tiles`` and ``values_tiles``.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from numba.core import cgutils

from pio.kernels import _amx as amx
from pio.kernels import _llvm as ll
from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import FORMATS, GROUP, PAIR, RECORD, START
from pio.kernels._rows import scale_row
from pio.kernels.quantized_tiles import group_python
from pio.kernels.simd import get_f32, get_i32, get_i64, int64, primitive, put_i32, splat, store_f32, void
from pio.kernels.sizes import BLOCK, KEY_PAIR, ROWS, TILE_STARTS
from pio.kernels.values_tiles import add_row_python

HALVES: Final = BLOCK // OUTPUTS
LINE: Final = 4 * OUTPUTS  # bytes of a row of sums
TILE: Final = ROWS * LINE  # bytes of a tile of sums
FOURS: Final = GROUP // 4  # rows of a tile of keys or values
KEYS: Final = FORMATS["int8"]
# What is known of queries for a pair: tiles that sums start from, exponents by group, and what scores start from.
EXPONENTS: Final = 2 * TILE
FIRST: Final = EXPONENTS + 2 * LINE

# Registers: of queries, a group each, or of probabilities; of keys or values; of sums, two for each half of a block.
_LEFT, _RIGHT, _SUMS = (0, 1, 2), 3, ((4, 5), (6, 7))
_SIZES: Final = {
    **{register: (ROWS, GROUP) for register in _LEFT},
    _RIGHT: (FOURS, amx.WIDTH),
    **{register: (ROWS, LINE) for half in _SUMS for register in half},
}


@primitive(void, emit=lambda b: amx.configure(b, _SIZES))
def begin_sixteen() -> None:
    """Have the registers ready for the tiles of this module."""


@primitive(void, emit=amx.release)
def end_sixteen() -> None:
    """Give the registers up."""


def _memory(b: Any, tiles: int) -> Any:
    memory = cgutils.alloca_once(b, ll.I32X16, size=ll.i64_const(tiles * ROWS))
    memory.align = 64
    return b.ptrtoint(memory, ll.I64)


def _emit_starts(b: Any, starts: Any, q: Any, pairs: Any) -> None:
    row = ll.at(b, ll.i64_const(START), (pairs, RECORD))
    with cgutils.for_range(b, pairs, intp=ll.I64) as loop:
        known = ll.at(b, starts, (loop.index, TILE_STARTS))
        for r in range(ROWS):
            query = ll.at(b, q, (row, r))
            record = ll.at(b, query, (START, 1), (loop.index, RECORD), (PAIR, 1))
            for g in range(2):
                value = ll.splat(b, ll.load(b, ll.at(b, record, (8 + 4 * g, 1)), ll.I32, 4))
                ll.store(b, ll.at(b, known, (TILE * g + LINE * r, 1)), value, 64)
                exponent = ll.load(b, ll.at(b, record, (4 * g, 1)), ll.I32, 4)
                ll.store(b, ll.at(b, known, (EXPONENTS + LINE * g + 4 * r, 1)), exponent, 4)
            ll.store(b, ll.at(b, known, (FIRST + 4 * r, 1)), ll.load(b, query, ll.I32, 4), 4)


@primitive(void, *[int64] * 3, emit=_emit_starts)
def start_scores(starts: int, q: int, pairs: int) -> None:
    """Write what ``scores_tile`` has to know of sixteen quantized queries, TILE_STARTS bytes for each pair."""
    for p in range(pairs):
        for r in range(ROWS):
            query, known = q + r * (START + pairs * RECORD), starts + p * TILE_STARTS
            record = query + START + p * RECORD + PAIR
            for g in range(2):
                for o in range(OUTPUTS):
                    put_i32(known + TILE * g + LINE * r + 4 * o, get_i32(record + 8 + 4 * g))
                put_i32(known + EXPONENTS + LINE * g + 4 * r, get_i32(record + 4 * g))
            put_i32(known + FIRST + 4 * r, get_i32(query))


@cache
def scores_tile(line: int) -> Callable[..., None]:
    """Return the tile ``scores[r, BLOCK b + j] = q[r] . keys[b][j]`` for sixteen queries, whose scores lie line apart.

    The tile takes ``(scores, q, addresses, starts, blocks, pairs)``: addresses of float32 scores, of quantized queries,
    of int64 (blocks,), the addresses of each block's keys, and of what ``start_scores`` has written; one block or more,
    pairs of groups, at least one.
    """

    def emit(b: Any, scores: Any, q: Any, addresses: Any, starts: Any, blocks: Any, pairs: Any) -> None:
        _Scores(b, line, scores, q, addresses, starts, pairs).emit(blocks)

    @primitive(void, *[int64] * 6, emit=emit)
    def tile(scores: int, q: int, addresses: int, starts: int, blocks: int, pairs: int) -> None:
        for i in range(blocks * HALVES):
            keys = get_i64(addresses + 8 * (i // HALVES)) + i % HALVES * pairs * KEY_PAIR
            for r in range(ROWS):
                row = q + r * (START + pairs * RECORD)
                sums = splat(get_f32(row))
                for p in range(pairs):
                    for g in range(2):
                        sums = group_python(KEYS, row + START + p * RECORD, keys + p * KEY_PAIR, g, sums)
                store_f32(scores + r * line + LINE * i, sums)

    return tile


class _Scores:
    """Pairs of groups of blocks, one after the other, and of each two halves: multiplied, then stored, then scaled.

    As in ``_amx_tile``: while a half is scaled, the next one is stored and the one behind it multiplied.
    """

    def __init__(self, b: Any, line: int, scores: Any, q: Any, addresses: Any, starts: Any, pairs: Any) -> None:
        self._b, self._line, self._scores, self._q = b, line, scores, q
        self._addresses, self._starts, self._pairs = addresses, starts, pairs
        self._integers = _memory(b, 2 * HALVES)

    def emit(self, blocks: Any) -> None:
        """Walk the blocks."""
        b, zero, one = self._b, ll.i64_const(0), ll.i64_const(1)
        at_block, at_pair = (cgutils.alloca_once_value(b, zero) for _ in range(2))
        self._load(zero)
        self._begin(zero, zero)
        several = b.icmp_signed(">", self._pairs, one)
        with (
            cgutils.for_range(b, blocks, intp=ll.I64) as outer,
            cgutils.for_range(b, self._pairs, intp=ll.I64) as inner,
        ):
            block, pair = outer.index, inner.index
            ends = b.icmp_signed("==", b.add(pair, one), self._pairs)
            last = b.and_(ends, b.icmp_signed("==", b.add(block, one), blocks))
            b.store(b.select(ends, zero, b.add(pair, one)), at_pair)
            b.store(b.select(b.and_(ends, b.not_(last)), b.add(block, one), block), at_block)
            following = b.load(at_block), b.load(at_pair)  # behind the last one the block's first, which nobody adds
            with b.if_then(several):  # queries of one pair stay where they are
                self._load(following[1])
            for half in range(HALVES):
                for g in range(2):
                    self._multiply(*following, half, g)
                    self._store(1 - half, g)
                with b.if_else(b.icmp_signed("==", pair, zero)) as (first, later):
                    with first:
                        self._scale(block, pair, half, begin=True)
                    with later:
                        self._scale(block, pair, half, begin=False)

    def _begin(self, block: Any, pair: Any) -> None:
        """Have both halves multiplied, and the first one stored."""
        for g in range(2):
            self._multiply(block, pair, 0, g)
        for g in range(2):
            self._multiply(block, pair, 1, g)
            self._store(0, g)

    def _load(self, pair: Any) -> None:
        """Read a pair of the queries."""
        b = self._b
        for g in range(2):
            at = ll.at(b, self._q, (pair, RECORD), (START + GROUP * g, 1))
            amx.load(b, _LEFT[g], at, ll.at(b, ll.i64_const(START), (self._pairs, RECORD)))

    def _multiply(self, block: Any, pair: Any, half: int, g: int) -> None:
        b, sums = self._b, _SUMS[half][g]
        amx.load(b, sums, ll.at(b, self._starts, (pair, TILE_STARTS), (TILE * g, 1)), ll.i64_const(LINE))
        keys = ll.at(b, self._keys(block, pair, half), (KEYS.header_bytes + KEYS.group_bytes * g, 1))
        amx.load(b, _RIGHT, keys, ll.i64_const(amx.WIDTH))
        amx.multiply(b, sums, _LEFT[g], _RIGHT, unsigned=True)

    def _store(self, half: int, g: int) -> None:
        amx.store(self._b, _SUMS[half][g], self._place(half, g, 0), ll.i64_const(LINE))

    def _scale(self, block: Any, pair: Any, half: int, *, begin: bool) -> None:
        """Add a pair's integer sums, times the scales of keys and queries, to scores, or to what these start from."""
        b, header = self._b, self._keys(block, pair, half)
        scales = [ll.load_as(b, ll.at(b, header, (2 * OUTPUTS * g, 1)), "float16") for g in range(2)]
        known = ll.at(b, self._starts, (pair, TILE_STARTS))
        scores = ll.at(b, self._scores, (block, 4 * BLOCK), (LINE * half, 1))
        for r in range(ROWS):
            place = ll.at(b, scores, (self._line * r, 1))
            if begin:
                value = ll.splat(b, ll.load(b, ll.at(b, known, (FIRST + 4 * r, 1)), ll.F32, 4))
            else:
                value = ll.load_as(b, place, "float32")
            for g in range(2):
                exponent = ll.load(b, ll.at(b, known, (EXPONENTS + LINE * g + 4 * r, 1)), ll.I32, 4)
                factor = b.bitcast(b.add(b.bitcast(scales[g], ll.I32X16), ll.splat(b, exponent)), ll.F32X16)
                integers = ll.load(b, self._place(half, g, r), ll.I32X16, 64)
                value = ll.fma(b, b.sitofp(integers, ll.F32X16), factor, value)
            ll.store(b, place, value, 4)

    def _keys(self, block: Any, pair: Any, half: int) -> Any:
        b = self._b
        keys = ll.load(b, ll.at(b, self._addresses, (block, 8)), ll.I64, 8)
        return ll.at(b, keys, (pair, KEY_PAIR), (self._pairs, half * KEY_PAIR))

    def _place(self, half: int, g: int, r: int) -> Any:
        return ll.at(self._b, self._integers, (TILE * (2 * half + g) + LINE * r, 1))


@cache
def weighted_tile(blocks: int, chance: int, *, shrinks: bool) -> Callable[..., None]:
    """Return the tile ``acc[r, d] (*)= left[r]; acc[r, d] += scale[r] * sum_bj p[r, b, j] * v[b][j, d]``, sixteen rows.

    The tile takes ``(acc, p, addresses, count, width)``: addresses of float32 (16, width), of quantized probabilities,
    chance bytes a row, sixteen before their end scale and, where it ``shrinks``, left, and of int64 (count,), the
    addresses of each block's values, up to ``blocks`` of them.
    """
    behind = chance - 16

    def emit(b: Any, acc: Any, p: Any, addresses: Any, count: Any, width: Any) -> None:
        last, one, step = b.sub(count, ll.i64_const(1)), ll.i64_const(1), b.mul(width, ll.i64_const(4))
        stays = min(blocks, len(_LEFT) - (blocks > len(_LEFT)))  # blocks whose probabilities have a register
        places = [cgutils.alloca_once(b, ll.I64) for _ in range(blocks)]
        for i, place in enumerate(places):
            which = b.select(b.icmp_signed("<", ll.i64_const(i), count), ll.i64_const(i), last)
            b.store(ll.load(b, ll.at(b, addresses, (which, 8)), ll.I64, 8), place)

        def load(i: int) -> None:
            """Read the probabilities of a block; of one that is not there they are zero."""
            register = _LEFT[min(i, stays)]
            with b.if_else(b.icmp_signed("<", ll.i64_const(i), count), likely=True) as (there, absent):
                with there:
                    amx.load(b, register, ll.at(b, p, (BLOCK * i, 1)), ll.i64_const(chance))
                with absent:
                    amx.clear(b, register)

        def multiply(turn: Any) -> None:
            amx.clear(b, sums)
            for i, place in enumerate(places):
                if i >= stays:
                    load(i)
                amx.load(b, _RIGHT, ll.at(b, b.load(place), (turn, LINE)), step)
                amx.multiply(b, sums, _LEFT[min(i, stays)], _RIGHT)

        for i in range(stays):
            load(i)
        sums, integers, turns = _SUMS[0][0], _memory(b, 2), b.lshr(width, ll.i64_const(4))
        multiply(ll.i64_const(0))
        amx.store(b, sums, integers, ll.i64_const(LINE))
        with b.if_then(b.icmp_signed(">", turns, one), likely=True):
            multiply(one)
        rows = [ll.own(b, ll.at(b, acc, (step, r))) for r in range(ROWS)]
        with cgutils.for_range(b, turns, intp=ll.I64) as loop:
            odd = b.and_(loop.index, one)
            here, there = (ll.at(b, integers, (o, TILE)) for o in (odd, b.xor(odd, one)))
            amx.store(b, sums, there, ll.i64_const(LINE))
            after = b.add(loop.index, ll.i64_const(2))
            with b.if_then(b.icmp_signed("<", after, turns), likely=True):
                multiply(after)
            for r, row in enumerate(rows):
                at, factors = ll.at(b, row, (loop.index, LINE)), ll.at(b, p, (chance * r + behind, 1))
                old = ll.load_as(b, at, "float32")
                if shrinks:
                    old = b.fmul(old, ll.splat(b, ll.load(b, ll.at(b, factors, (4, 1)), ll.F32, 4)))
                total = ll.load(b, ll.at(b, here, (LINE * r, 1)), ll.I32X16, 64)
                scale = ll.splat(b, ll.load(b, factors, ll.F32, 4))
                ll.store(b, at, ll.fma(b, b.sitofp(total, ll.F32X16), scale, old), 4)

    @primitive(void, *[int64] * 5, emit=emit)
    def tile(acc: int, p: int, addresses: int, count: int, width: int) -> None:
        values = [get_i64(addresses + 8 * i) for i in range(count)]
        for r in range(ROWS):
            row, chances = acc + 4 * r * width, p + chance * r
            if shrinks:
                scale_row(row, row, width, get_f32(chances + behind + 4))
            add_row_python(row, chances, behind, values, width)

    return tile
