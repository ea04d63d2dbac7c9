"""Register tiles of a warp over packed weights: 32 outputs by eight rows for each pair of groups, by tensor cores.

A block of sixteen outputs lies in memory by fours of inputs (see ``_formats``), so that sixteen bytes are four outputs
of the same inputs. A lane (g, t) reads those of outputs 4 g to 4 g + 3 of two blocks, of inputs 8 t to 8 t + 7 of a
group: two instructions, of sixteen outputs each, take them as they are, as unsigned bytes. Integer sums of a group are
exact and begin with what the weights' offset adds up to; then each output adds its groups in their order to a float32.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from llvmlite import ir
from numba import types

from pio.kernels._formats import BLOCK, FORMATS, GROUP, RECORD, Format
from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._sums import put_sums
from pio.kernels.cuda.ptx.emit import (
    F16,
    F32,
    GLOBAL,
    I32,
    I64,
    SHARED,
    Words,
    asm,
    float32,
    floats,
    fused,
    i32,
    i64,
    int32,
    int64,
    load_at,
    named,
    numbers,
    primitive,
    read_once,
    read_words,
)

MAGIC: Final = (
    0x4B400000  # 12582912.0, whose last bit is worth 1: an integer below 2^22 added to its bits is added to it
)
ROW_SUMS: Final = 8  # of a lane, of eight rows: two instructions of four

pair_bytes = PerDtype(lambda key: form_of(key)[0].pair_bytes)
tiles_of = PerDtype(lambda key: form_of(key)[1])


def form_of(key: str) -> tuple[Format, int]:
    """Return a format and how many tiles of eight rows: ``"int4/2"``, or ``"int4/1/own"`` of rows in shared memory."""
    name, tiles, *_ = f"{key}/1".split("/")
    return FORMATS[name], int(tiles)


class Group(NamedTuple):
    """What a lane reads of a group of four outputs: words of numbers, scales, minima if there are any."""

    numbers: Words
    scales: Words
    minima: Words


def _read(b: Any, form: Format, stored: Any, header: Any, space: int, g: int) -> Group:
    """Read a group of a pair: ``stored`` is where a lane's numbers begin, ``header`` where its scales do."""
    eighths = 8 // form.bits * 4  # inputs of a row of sixteen bytes
    own: Words = []
    for i in range(8 // eighths):
        place = b.add(stored, i64(g * form.group_bytes + 64 * i))
        own += read_once(b, place) if space == GLOBAL else read_words(b, place, 4, space)
    scales = _halves(b, b.add(header, i64(2 * BLOCK * g)), space)
    minima = _halves(b, b.add(header, i64(2 * BLOCK * (2 + g))), space) if form.minima else []
    return Group(own, scales, minima)


def _halves(b: Any, address: Any, space: int) -> Words:
    """Two words of four float16."""
    return read_words(b, address, 2, space)


def _wide(b: Any, words: Words) -> Words:
    """Four float16 as float32."""
    pairs = [b.bitcast(word, ir.VectorType(F16, 2)) for word in words]
    return [b.fpext(b.extract_element(pair, i32(i)), F32) for pair in pairs for i in range(2)]


def _bytes(b: Any, form: Format, words: Words) -> list[Words]:
    """For each of four outputs its eight inputs of a group, in two words of bytes."""
    if form.bits == 8:
        return [[words[o], words[4 + o]] for o in range(4)]
    low = i32(0x0F0F0F0F)
    return [[b.and_(word, low), b.and_(b.lshr(word, i32(4)), low)] for word in words]


def _mma(b: Any, sums: Words, left: Words, right: Words) -> Words:
    text = "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    kind = ir.LiteralStructType([I32] * 4)
    found = asm(b, text, "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r", kind, [*left, *right, *sums])
    return [b.extract_value(found, i) for i in range(4)]


class Rows(NamedTuple):
    """Where a lane finds activations of some tiles, by group and tile, so that few registers hold them.

    Attributes:
        inputs: Reads the two words of a row that a lane multiplies.
        ends: Reads the exponents of the two rows that a lane has sums of, and what offsets add up to.
    """

    inputs: Callable[[int, int], Words]
    ends: Callable[[int, int], list[Words]]


def _rows(b: Any, inputs: list[Any], ends: list[Any], space: int) -> Rows:
    """Return rows by addresses: one for each tile, and two."""

    def read(address: Any, at: int, count: int) -> Words:
        return read_words(b, b.add(address, i64(at)), count, space)

    def of(g: int, j: int) -> list[Words]:
        return [
            [load_at(b, b.add(row, i64(4 * g + at)), I32, 4, space) for at in (0, 8)] for row in ends[2 * j : 2 * j + 2]
        ]

    if len(inputs) > 1:
        return Rows(lambda g, j: read(inputs[j], GROUP * g, 2), of)
    words = [read(inputs[0], GROUP * g, 2) for g in range(2)]
    both = [read(row, 0, 4) for row in ends]
    return Rows(lambda g, j: words[g], lambda g, j: [[row[g], row[2 + g]] for row in both])


def _add_pair(b: Any, form: Format, sums: Words, tiles: int, read: Callable[[int], Group], rows: Rows) -> Words:
    """Add a pair of groups, each of which is read when it is met, to the sums of some tiles, eight of each."""
    total = list(sums)
    for g in range(2):
        group = read(g)
        stored, scales = _bytes(b, form, group.numbers), _wide(b, group.scales)
        bits = [b.bitcast(scale, I32) for scale in scales]
        minima = _wide(b, group.minima) if form.minima else []
        for j in range(tiles):
            x, ends = rows.inputs(g, j), rows.ends(g, j)
            begin = [i32(MAGIC) if form.minima else b.add(end, i32(MAGIC)) for _, end in ends]
            for m in range(2):
                first, second = stored[2 * m : 2 * m + 2]
                part = _mma(b, [*begin, *begin], [first[0], second[0], first[1], second[1]], x)
                for e, whole in enumerate(part):
                    at, output, (exponent, end) = ROW_SUMS * j + 4 * m + e, 2 * m + e // 2, ends[e % 2]
                    value = b.fsub(b.bitcast(whole, F32), ir.Constant(F32, 12582912.0))
                    factor = b.bitcast(b.add(bits[output], exponent), F32)
                    total[at] = fused(b, value, factor, total[at])
                    if form.minima:
                        total[at] = fused(b, minima[output], b.bitcast(end, F32), total[at])
    return total


def _few_pairs(key: str, count: int) -> Any:
    form, tiles = form_of(key)
    space = SHARED if key.endswith("/own") else GLOBAL

    def emit(b: Any, sums: Any, stored: Any, header: Any, x: Any, rows: Any, ends: Any, p: Any) -> Words:
        found, own, others = numbers(b, sums), numbers(b, rows), numbers(b, ends)
        first = b.mul(p, i64(form.pair_bytes))
        pairs: list[list[Group]] = []
        for i in range(count):  # all of them are asked for before one is met
            place = b.add(first, i64(i * form.pair_bytes))
            at = b.add(stored, place), b.add(header, place)
            pairs.append([_read(b, form, *at, GLOBAL, g) for g in range(2)])
        for i, pair in enumerate(pairs):
            at = b.add(x, b.add(b.mul(p, i64(RECORD)), i64(RECORD * i)))
            inputs, both = ([b.add(at, b.zext(row, I64)) for row in some] for some in (own, others))
            places = _rows(b, inputs, both, space)
            found = _add_pair(b, form, found, tiles, pair.__getitem__, places)
        return found

    size = ROW_SUMS * tiles
    offsets = [types.UniTuple(int32, tiles), types.UniTuple(int32, 2 * tiles)]
    made = primitive((float32,) * size, floats(size), int64, int64, int64, *offsets, int64, emit=emit)
    return made(named("tile", "Add pairs of groups from p on.", "sums", "stored", "header", "x", "rows", "ends", "p"))


def _ahead(key: str) -> int:
    form, tiles = form_of(key)
    return (2 if form.bits == 8 or form.minima else 3) if tiles == 1 else 1  # registers hold no more


ahead = PerDtype(_ahead)  # pairs whose weights are asked for together
few_pairs = PerDtype(lambda key: _few_pairs(key, _ahead(key)))
few_pair = PerDtype(lambda key: _few_pairs(key, 1))


def _offsets(count: int, steps: Callable[[int], int]) -> Any:
    def emit(b: Any, row: Any, rows: Any, stride: Any, start: Any) -> Words:
        last, found = b.sub(rows, i64(1)), []
        for i in range(count):
            own = b.add(row, i64(steps(i)))
            own = b.select(b.icmp_signed("<", own, last), own, last)
            found.append(b.trunc(b.add(b.mul(own, stride), start), I32))
        return found

    made = primitive((int32,) * count, *[int64] * 4, emit=emit)
    return made(named("tile", "Where some rows from ``row`` on are, or the last.", "row", "rows", "stride", "start"))


row_offsets = PerDtype(lambda key: _offsets(form_of(key)[1], lambda i: 8 * i))
end_offsets = PerDtype(lambda key: _offsets(2 * form_of(key)[1], lambda i: 8 * (i // 2) + i % 2))

ACROSS: Final = 4  # tiles of eight rows of a warp that takes many


def _many_pair(name: str) -> Any:
    form = FORMATS[name]

    def emit(b: Any, sums: Any, stored: Any, header: Any, row: Any, end: Any) -> Words:
        inputs = [b.add(row, i64(8 * RECORD * j)) for j in range(ACROSS)]
        ends = [b.add(end, i64(RECORD * (8 * j + i))) for j in range(ACROSS) for i in range(2)]
        rows = _rows(b, inputs, ends, SHARED)

        def read(g: int) -> Group:
            return _read(b, form, stored, header, SHARED, g)

        return _add_pair(b, form, numbers(b, sums), ACROSS, read, rows)

    size = ROW_SUMS * ACROSS
    made = primitive((float32,) * size, floats(size), *[int64] * 4, emit=emit)
    return made(named("tile", "Add a pair of groups in shared memory.", "sums", "stored", "header", "row", "end"))


many_pair = PerDtype(_many_pair)

FEW_LINE: Final = 36  # sums of a row of few rows: lanes meet no bank twice
MANY_LINE: Final = 132  # of a row of many


def _places(across: int, width: int) -> list[int]:
    """Where a lane's sums go: rows 8 j and 8 j + 1, four outputs of each."""
    return [(8 * j + e % 2) * width + 2 * m + e // 2 for j in range(across) for m in range(2) for e in range(4)]


put_few = PerDtype(lambda key: put_sums(ROW_SUMS * form_of(key)[1], _places(form_of(key)[1], FEW_LINE)))
put_many = put_sums(ROW_SUMS * ACROSS, _places(ACROSS, MANY_LINE))
