"""Fragments of products of int8, as ``fragments`` has those of floats: 16 x 32 times 32 x 8, exact sums.

Lane 4 g + c holds of the left factor four neighbours of rows g and g + 8, twice; of a cache these are words that lie
side by side, one for each of eight rows: word 2 i goes to row g of instruction i, word 2 i + 1 to row g + 8.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types

from pio.kernels.cuda.ptx.emit import (
    F16,
    F32,
    GLOBAL,
    I32,
    I64,
    SHARED,
    asm,
    float32,
    fused,
    int32,
    int64,
    primitive,
    read_words,
    store_at,
    void,
)
from pio.kernels.cuda.ptx.fragments import SUMS, TILE, WORDS, parts

EIGHT = types.UniTuple(float32, 8)


def _dots(b: Any, words: list[Any], right: list[Any]) -> list[Any]:
    """The exact sums of a tile, as float32."""
    text = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    made, zero = list[Any](), ir.Constant(I32, 0)
    for i in range(4):
        left = [words[2 * i], words[2 * i + 1], words[8 + 2 * i], words[9 + 2 * i]]
        values = [*left, *right, zero, zero, zero, zero]
        found = asm(b, text, "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r", ir.LiteralStructType([I32] * 4), values)
        made += [b.sitofp(b.extract_value(found, r), F32) for r in range(4)]
    return made


def _add_group(b: Any, sums: Any, words: Any, scales: Any, *right: Any) -> list[Any]:
    sign, rows = ir.Constant(I32, -0x7F7F7F80), parts(b, scales, 8)
    found = _dots(b, [b.xor(word, sign) for word in parts(b, words, 16)], list(right[:2]))
    made: list[Any] = []
    for e, (dot, total) in enumerate(zip(found, parts(b, sums, 16), strict=True)):
        scale = b.fmul(rows[2 * (e // 4) + e % 4 // 2], right[2 + e % 2])
        made.append(fused(b, dot, scale, total))
    return made


@primitive(TILE, SUMS, WORDS, EIGHT, int32, int32, float32, float32, emit=_add_group)
def add_group(sums, words, scales, b0, b1, scale0, scale1):  # type: ignore[no-untyped-def]
    """Add to a tile the products of a group of 32 numbers, kept with 128 added, by scales of rows and of queries."""


def _add_values(b: Any, sums: Any, words: Any, *right: Any) -> list[Any]:
    found = _dots(b, parts(b, words, 16), list(right[:2]))
    return [
        fused(b, dot, right[2 + e % 2], total)
        for e, (dot, total) in enumerate(zip(found, parts(b, sums, 16), strict=True))
    ]


@primitive(TILE, SUMS, WORDS, int32, int32, float32, float32, emit=_add_values)
def add_values(sums, words, b0, b1, scale0, scale1):  # type: ignore[no-untyped-def]
    """Add to a tile the products of the values of 32 positions and quantized probabilities, with those' scales."""


def _load_halves(b: Any, address: Any) -> list[Any]:
    made: list[Any] = []
    for word in read_words(b, address, 4, GLOBAL):
        two = b.bitcast(word, ir.VectorType(F16, 2))
        made += [b.fpext(b.extract_element(two, ir.Constant(I32, i)), F32) for i in (0, 1)]
    return made


@primitive((float32,) * 8, int64, emit=_load_halves)
def load_halves(address):  # type: ignore[no-untyped-def]
    """Eight float16 in a row, from an address that sixteen divides."""


def _load_singles(b: Any, address: Any) -> list[Any]:
    words = [*read_words(b, address, 4, GLOBAL), *read_words(b, b.add(address, ir.Constant(I64, 16)), 4, GLOBAL)]
    return [b.bitcast(word, F32) for word in words]


@primitive((float32,) * 8, int64, emit=_load_singles)
def load_singles(address):  # type: ignore[no-untyped-def]
    """Eight float32 in a row, from an address that sixteen divides."""


@primitive((float32,) * 8, emit=lambda b: [ir.Constant(F32, 0.0)] * 8)
def no_scales():  # type: ignore[no-untyped-def]
    """Eight zeros."""


def _weigh(b: Any, scores: Any, chances: Any, scales: Any) -> list[Any]:
    rows, made = parts(b, scales, 8), list[Any]()
    for e, (score, chance) in enumerate(zip(parts(b, scores, 16), parts(b, chances, 16), strict=True)):
        hidden = b.fcmp_ordered("==", score, ir.Constant(F32, -math.inf))
        product = b.fmul(chance, rows[2 * (e // 4) + e % 4 // 2])
        made.append(b.select(hidden, ir.Constant(F32, 0.0), product))
    return made


@primitive(TILE, SUMS, SUMS, EIGHT, emit=_weigh)
def weigh(scores, chances, scales):  # type: ignore[no-untyped-def]
    """Probabilities times the scales of rows; zero where a score is -inf, whatever the scale is."""


def _largest_or_nan(b: Any, chances: Any) -> list[Any]:
    p, made = parts(b, chances, 16), list[Any]()
    for q in (0, 1):
        most = p[q]
        for x in p[q + 2 :: 2]:
            most = asm(b, "max.NaN.f32 $0, $1, $2;", "=f,f,f", F32, [most, x])
        made.append(most)
    return made


@primitive((float32, float32), SUMS, emit=_largest_or_nan)
def largest_or_nan(chances):  # type: ignore[no-untyped-def]
    """The largest of a lane's elements of each of its two queries; NaN where one of them is none."""


def _put_bytes(b: Any, address: Any, chances: Any, *factors: Any) -> None:
    p = parts(b, chances, 16)
    for q in (0, 1):
        words: list[Any] = []
        for four in (0, 4):
            word = ir.Constant(I32, 0)
            for j in range(4):
                e = 4 * ((four + j) // 2) + 2 * ((four + j) % 2) + q
                whole = asm(b, "cvt.rni.s32.f32 $0, $1;", "=r,f", I32, [b.fmul(p[e], factors[1 + q])])
                byte = b.and_(whole, ir.Constant(I32, 255))
                word = b.or_(word, b.shl(byte, ir.Constant(I32, 8 * j)))
            words.append(word)
        raw = ir.Constant(ir.VectorType(I32, 2), ir.Undefined)
        for i, word in enumerate(words):
            raw = b.insert_element(raw, word, ir.Constant(I32, i))
        store_at(b, address, raw, 8, SHARED)
        address = b.add(address, factors[0])


@primitive(void, int64, SUMS, int64, float32, float32, emit=_put_bytes)
def put_bytes(address, chances, stride, factor0, factor1):  # type: ignore[no-untyped-def]
    """Write a lane's eight rows of each query, times a factor, as bytes to shared memory, the second's behind."""


def _load_turned(b: Any, *places: Any) -> list[Any]:
    sign, made = ir.Constant(I32, -0x7F7F7F80), list[Any]()

    def pick(x: Any, y: Any, how: str) -> Any:
        return asm(b, f"prmt.b32 $0, $1, $2, {how};", "=r,r,r", I32, [x, y])

    for place in places:
        p, q, r, s = read_words(b, place, 4, GLOBAL)
        # bytes 0 and 1, then 2 and 3, of two words alternate; then halves of these
        low, high = (pick(p, q, "0x5140"), pick(r, s, "0x5140")), (pick(p, q, "0x7362"), pick(r, s, "0x7362"))
        for two in (low, high):
            made += [b.xor(pick(*two, how), sign) for how in ("0x5410", "0x7632")]
    return made


@primitive((int32,) * 16, *[int64] * 4, emit=_load_turned)
def load_turned(a, b_, c, d):  # type: ignore[no-untyped-def]
    """Of four positions' four numbers at each of four addresses, kept with 128 added, four numbers' four positions."""
