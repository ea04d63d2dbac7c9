"""Register tiles of a warp: sixteen outputs by eight rows for each 32 inputs, by tensor cores.

Weights are the left factor, activations the right one: a row takes the very instructions that eight take, and few and
many rows take them in one order. Which inputs meet in one instruction is free as long as both factors agree: a lane
reads eight neighbours of its row at once and gives them to two instructions, or to four.

    kind      weights         activations                     instructions of 16 inputs
    bfloat16  as stored       sum of two bfloat16, 2^-17      2 of bfloat16
    rounded   as stored       bfloat16                        1 of bfloat16
    float16   tf32, exact     sum of two tf32, 2^-22          4 of tf32
    float32   sum of two tf32 sum of two tf32, 2^-21          6 of tf32

What is not finite becomes NaN, but in rounded rows, which keep infinities.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from typing import Any, Final, NamedTuple

from llvmlite import ir
from numba import types

from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda._eights import Eight, eight_of
from pio.kernels.cuda._sums import put_sums
from pio.kernels.cuda.ptx.emit import (
    F16,
    F32,
    GLOBAL,
    I32,
    SHARED,
    Words,
    asm,
    float32,
    floats,
    i32,
    i64,
    int64,
    named,
    numbers,
    primitive,
)
from pio.kernels.sizes import ROUNDED

STEP: Final = 32  # inputs that a warp takes at once


class Kind(NamedTuple):
    """How weights meet activations.

    Attributes:
        weight: Bytes of a number of them.
        input: Bytes of an activation.
        across: Tiles of eight rows that a warp takes of many, as many as registers hold.
        parts: Which parts of weights and activations are multiplied, in order.
    """

    weight: int
    input: int
    across: int
    parts: tuple[tuple[int, int], ...]


KINDS: Final = {
    "float32": Kind(4, 4, 2, ((1, 0), (0, 1), (0, 0))),
    "float16": Kind(2, 4, 2, ((0, 0), (0, 1))),
    "bfloat16": Kind(2, 4, 4, ((0, 0), (0, 1))),
    ROUNDED: Kind(2, 2, 4, ((0, 0),)),
}
TF32: Final = ("float32", "float16")  # kinds whose factors are tf32
weight_bytes = PerDtype(lambda key: kind_of(key)[1].weight)
input_bytes = PerDtype(lambda key: kind_of(key)[1].input)
tiles_of = PerDtype(lambda key: kind_of(key)[2])


def kind_of(key: str) -> tuple[str, Kind, int]:
    """Return a kind and how many tiles of eight rows: ``"bfloat16/2"``."""
    name, _, tiles = key.partition("/")
    return name, KINDS[name], int(tiles or 1)


def _bfloat16_parts(b: Any, x: Words) -> list[Words]:
    """Numbers as two words of bfloat16 for each two: rounded, and what rounding leaves."""
    high: Words = []
    low: Words = []
    for i in range(0, len(x), 2):
        first, second = (b.bitcast(v, F32) for v in x[i : i + 2])
        text = "cvt.rn.bf16x2.f32 $0, $1, $2;"
        word = asm(b, text, "=r,f,f", I32, [second, first])
        left = b.fsub(first, b.bitcast(b.shl(word, i32(16)), F32))
        right = b.fsub(second, b.bitcast(b.and_(word, i32(-1 << 16)), F32))
        high.append(word)
        low.append(asm(b, text, "=r,f,f", I32, [right, left]))
    return [high, low]


def _tf32_parts(b: Any, x: Words) -> list[Words]:
    """Numbers as two of tf32: rounded, and what rounding leaves."""
    values = [b.bitcast(v, F32) for v in x]
    high = [asm(b, "cvt.rna.tf32.f32 $0, $1;", "=r,f", I32, [v]) for v in values]
    rest = [b.fsub(v, b.bitcast(h, F32)) for v, h in zip(values, high, strict=True)]
    return [high, [asm(b, "cvt.rna.tf32.f32 $0, $1;", "=r,f", I32, [v]) for v in rest]]


def _weights(b: Any, name: str, words: Words) -> list[Words]:
    """The parts that weights are multiplied in."""
    if name == "float32":
        return _tf32_parts(b, words)
    if name == "float16":
        halves = [b.bitcast(word, ir.VectorType(F16, 2)) for word in words]
        wide = [b.fpext(b.extract_element(pair, i32(i)), F32) for pair in halves for i in range(2)]
        return [[b.bitcast(v, I32) for v in wide]]
    return [words]


def _inputs(b: Any, name: str, words: Words) -> list[Words]:
    """The parts that activations are multiplied in."""
    if name == ROUNDED:
        return [words]
    return (_bfloat16_parts if name == "bfloat16" else _tf32_parts)(b, words)


def _mma(b: Any, name: str, sums: Words, left: Words, right: Words) -> Words:
    """Add a product to four sums."""
    shape = "m16n8k8.row.col.f32.tf32.tf32.f32" if name in TF32 else "m16n8k16.row.col.f32.bf16.bf16.f32"
    text = f"mma.sync.aligned.{shape} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
    kind = ir.LiteralStructType([F32] * 4)
    found = asm(b, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", kind, [*left, *right, *sums])
    return [b.extract_value(found, i) for i in range(4)]


def _step(b: Any, name: str, sums: list[Words], rows: list[tuple[Eight, Eight]], xs: list[Eight]) -> list[Words]:
    """Add the product of all rows of weights, two for each tile of sixteen outputs, and all rows of activations.

    One pair of factors at a time is made of what was read, so that few registers hold them.
    """
    meet = 2 if name in TF32 else 4  # neighbours of a lane that meet in one instruction
    for first in range(0, 8, meet):
        left = [[_weights(b, name, row.words(first, meet)) for row in pair] for pair in rows]
        for j, row in enumerate(xs):
            right = _inputs(b, name, row.words(first, meet))
            for i, (low, high) in enumerate(left):
                at = i * len(xs) + j
                for w, x in KINDS[name].parts:
                    p, q = low[w], high[w]
                    sums[at] = _mma(b, name, sums[at], [p[0], q[0], p[1], q[1]], right[x])
    return sums


def _fours(values: Words) -> list[Words]:
    return [values[i : i + 4] for i in range(0, len(values), 4)]


def _few_steps(key: str, steps: int) -> Any:
    name, kind, tiles = kind_of(key)

    def emit(b: Any, sums: Any, low: Any, high: Any, xs: Any, at: Any) -> Words:
        found, rows = _fours(numbers(b, sums)), numbers(b, xs)
        places = [b.mul(b.add(at, i64(STEP * s)), i64(kind.weight)) for s in range(steps)]
        weights = [
            [Eight(b, b.add(row, place), kind.weight, GLOBAL, once=True) for row in (low, high)] for place in places
        ]
        for row in (row for pair in weights for row in pair):  # all of them are asked for before one is met
            row.half(0)
            if kind.weight == 4:
                row.half(1)
        for s, (first, second) in enumerate(weights):
            place = b.mul(b.add(at, i64(STEP * s)), i64(kind.input))
            inputs = [Eight(b, b.add(row, place), kind.input, GLOBAL) for row in rows]
            found = _step(b, name, found, [(first, second)], inputs)
        return [v for four in found for v in four]

    made = primitive(
        (float32,) * (4 * tiles), floats(4 * tiles), int64, int64, types.UniTuple(int64, tiles), int64, emit=emit
    )
    return made(named("tile", "Add steps from a lane's input ``at`` on.", "sums", "low", "high", "xs", "at"))


def _few_part(key: str) -> Any:
    name, kind, tiles = kind_of(key)

    def emit(b: Any, sums: Any, low: Any, high: Any, xs: Any, at: Any, k: Any) -> Words:
        first, second = (eight_of(b, row, at, k, kind.weight) for row in (low, high))
        inputs = [eight_of(b, row, at, k, kind.input) for row in numbers(b, xs)]
        found = _step(b, name, _fours(numbers(b, sums)), [(first, second)], inputs)
        return [v for four in found for v in four]

    made = primitive(
        (float32,) * (4 * tiles), floats(4 * tiles), int64, int64, types.UniTuple(int64, tiles), int64, int64, emit=emit
    )
    return made(named("tile", "Add a step, number by number, zeros from k on.", "sums", "low", "high", "xs", "at", "k"))


def _ahead(key: str) -> int:
    """Steps whose weights are asked for together: 4 KB of a warp, less where registers hold more sums."""
    _, kind, tiles = kind_of(key)
    return 8 // kind.weight // min(tiles, 2)


ahead = PerDtype(_ahead)
few_steps = PerDtype(lambda key: _few_steps(key, _ahead(key)))
few_step = PerDtype(lambda key: _few_steps(key, 1))
few_part = PerDtype(_few_part)


def _row_addresses(key: str) -> Any:
    tiles = int(key.partition("/")[2])

    def emit(b: Any, x: Any, row: Any, rows: Any, stride: Any) -> Words:
        last, found = b.sub(rows, i64(1)), []
        for j in range(tiles):
            own = b.add(row, i64(8 * j))
            own = b.select(b.icmp_signed("<", own, last), own, last)
            found.append(b.add(x, b.mul(own, stride)))
        return found

    made = primitive((int64,) * tiles, *[int64] * 4, emit=emit)
    return made(named("tile", "Where every eighth row from ``row`` on begins.", "x", "row", "rows", "stride"))


row_addresses = PerDtype(_row_addresses)

DOWN: Final = 2  # tiles of sixteen outputs of a warp that takes many rows


def line(itemsize: int) -> int:
    """Return the bytes of a row of a stage."""
    return STEP * itemsize


def _many_step(key: str) -> Any:
    name, kind, _ = kind_of(key)

    def emit(b: Any, sums: Any, w: Any, x: Any) -> Words:
        def eight(start: Any, row: int, itemsize: int) -> Eight:
            return Eight(b, b.add(start, i64(row * line(itemsize))), itemsize, SHARED)

        rows = [(eight(w, 16 * i, kind.weight), eight(w, 16 * i + 8, kind.weight)) for i in range(DOWN)]
        inputs = [eight(x, 8 * j, kind.input) for j in range(kind.across)]
        return [v for four in _step(b, name, _fours(numbers(b, sums)), rows, inputs) for v in four]

    count = 4 * DOWN * kind.across
    made = primitive((float32,) * count, floats(count), int64, int64, emit=emit)
    return made(named("tile", "Add a step in shared memory, from a lane's eight neighbours on.", "sums", "w", "x"))


many_step = PerDtype(_many_step)


FEW_LINE: Final = 20  # sums of a row of few rows: lanes meet no bank twice
MANY_LINE: Final = 132  # of a row of many


def _places(down: int, across: int, width: int) -> list[int]:
    """Where a lane's sums go: rows 8 j and 8 j + 1, outputs 16 i and 16 i + 8."""
    return [
        (8 * j + e % 2) * width + 16 * i + 8 * (e // 2) for i in range(down) for j in range(across) for e in range(4)
    ]


put_few = PerDtype(lambda key: put_sums(4 * kind_of(key)[2], _places(1, kind_of(key)[2], FEW_LINE)))
put_many = PerDtype(lambda kind: put_sums(4 * DOWN * KINDS[kind].across, _places(DOWN, KINDS[kind].across, MANY_LINE)))
