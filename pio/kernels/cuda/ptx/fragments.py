"""What a warp holds of a product of attention: fragments of the tensor cores' factors and sums, as tuples.

``mma_bf16`` and its like multiply a left factor, 16 x 16, by a right one, 16 x 8. Lane 4 g + c holds rows g and g + 8
of the left one, column g of the right one. Which numbers meet in one instruction is free as long as both factors agree,
so that sixteen bytes of memory, eight numbers in a row, go to four instructions: number 2 i to row g of instruction i,
number 2 i + 1 to row g + 8. Of four such rows of memory, two and two neighbours of a sum are put side by side: that is
all it takes to turn keys that lie transposed, and values that lie as rows.

A tile is 64 rows by 8 queries: of lane 4 g + c element 4 i + r is row 8 g + 2 i + r / 2, query 2 c + r mod 2.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from pio.kernels._per_dtype import by_dtype
from pio.kernels.cuda.ptx.emit import (
    F32,
    GLOBAL,
    I32,
    I64,
    ITEMSIZE,
    asm,
    float32,
    int32,
    int64,
    named,
    primitive,
    put_words,
    read_words,
    two_of,
    void,
)

TILE = (float32,) * 16
SUMS, WORDS, WIDE_WORDS = (types.UniTuple(kind, n) for kind, n in ((float32, 16), (int32, 16), (int32, 32)))
QUERIES = 8  # of a tile
POSITIONS = 64  # of a tile
RIGHT = 16 * 32  # bytes of a right factor of a warp
KINDS = {"bfloat16": "bf16", "float16": "f16"}


def parts(b: Any, tuple_: Any, n: int) -> list[Any]:
    """The elements of a tuple."""
    return [b.extract_value(tuple_, i) for i in range(n)]


def mma(b: Any, kind: str, c: list[Any], a: list[Any], right: list[Any]) -> list[Any]:
    """Add a product of 16 x 16 and 16 x 8 numbers of sixteen bits."""
    text = (
        f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 "
        "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    )
    four = ir.LiteralStructType([F32] * 4)
    result = asm(b, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", four, [*a, *right, *c])
    return [b.extract_value(result, i) for i in range(4)]


def _pack(b: Any, low: Any, high: Any, kind: str) -> Any:
    """Two numbers rounded to nearest, in one word."""
    return asm(b, f"cvt.rn.{kind}x2.f32 $0, $1, $2;", "=r,f,f", I32, [high, low])


def _split(b: Any, low: Any, high: Any, dtype: str) -> tuple[Any, Any]:
    """Two numbers as two words: rounded, and what rounding leaves."""
    word = _pack(b, low, high, KINDS[dtype])
    one, two = two_of(b, word, dtype)
    return word, _pack(b, b.fsub(low, one), b.fsub(high, two), KINDS[dtype])


def _half(dtype: str) -> str:
    """The type that numbers of a cache are multiplied in."""
    return "bfloat16" if dtype == "float32" else dtype


def _load_rows(dtype: str) -> Any:
    def emit(b: Any, *places: Any) -> list[Any]:
        words: list[Any] = []
        for place in places:
            words += read_words(b, place, 4, GLOBAL)
            if dtype == "float32":
                words += read_words(b, b.add(place, ir.Constant(I64, 16)), 4, GLOBAL)
        return words

    return primitive((int32,) * (32 if dtype == "float32" else 16), *[int64] * 4, emit=emit)


def _left(dtype: str) -> Any:
    def pairs(b: Any, words: list[Any], i: int) -> list[Any]:
        """The words of rows g and g + 8 of instruction i."""
        made: list[Any] = []
        for two in (0, 8):
            x, y = words[two + i], words[two + 4 + i]
            made += [asm(b, f"prmt.b32 $0, $1, $2, {how};", "=r,r,r", I32, [x, y]) for how in ("0x5410", "0x7632")]
        return made

    def emit(b: Any, rows: Any) -> list[Any]:
        return [word for i in range(4) for word in pairs(b, parts(b, rows, 16), i)]

    def emit_two(b: Any, rows: Any) -> list[Any]:
        numbers = [b.bitcast(word, F32) for word in parts(b, rows, 32)]
        made = [
            _split(b, numbers[two + 2 * i + odd], numbers[two + 8 + 2 * i + odd], "bfloat16")
            for i in range(4)
            for two in (0, 16)
            for odd in (0, 1)
        ]
        return [rounded for rounded, _ in made] + [left for _, left in made]

    if dtype == "float32":
        return primitive((int32,) * 32, WIDE_WORDS, emit=emit_two)
    return primitive((int32,) * 16, WORDS, emit=emit)


def _add_product(dtype: str) -> Any:
    kind = KINDS[_half(dtype)]

    def emit(b: Any, sums: Any, left: Any, *right: Any) -> list[Any]:
        c, a = parts(b, sums, 16), parts(b, left, 32 if dtype == "float32" else 16)
        made: list[Any] = []
        for i in range(4):
            four = slice(4 * i, 4 * i + 4)
            total = mma(b, kind, c[four], a[four], list(right[:2]))
            total = mma(b, kind, total, a[four], list(right[2:]))
            if dtype == "float32":
                total = mma(b, kind, total, a[16:][four], list(right[:2]))
            made += total
        return made

    left = WIDE_WORDS if dtype == "float32" else WORDS
    return primitive(TILE, SUMS, left, *[int32] * 4, emit=emit)


def _put_chances(dtype: str) -> Any:
    def emit(b: Any, address: Any, chances: Any) -> None:
        p = parts(b, chances, 16)
        for i in range(4):
            rows = [_split(b, *p[4 * i + 2 * odd : 4 * i + 2 * odd + 2], _half(dtype)) for odd in (0, 1)]
            four = [_turned(b, word) for word in (rows[0][0], rows[1][0], rows[0][1], rows[1][1])]
            put_words(b, b.add(address, ir.Constant(I64, RIGHT * i)), *four)

    return primitive(void, int64, SUMS, emit=emit)


def _turned(b: Any, word: Any) -> Any:
    """Transpose 8 x 8 numbers of sixteen bits, two a lane."""
    text = "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;"
    return asm(b, text, "=r,r", I32, [word], effects=True)


def _row_words(dtype: str) -> Any:
    def emit(b: Any, place: Any, left: Any) -> list[Any]:
        there = b.icmp_signed(">", left, ir.Constant(I64, 0))
        back = b.mul(b.sub(left, ir.Constant(I64, 8)), ir.Constant(I64, ITEMSIZE[dtype]))
        safe = b.select(there, place, b.add(place, back))  # the last eight of the row
        words = read_words(b, safe, 4, GLOBAL)
        if dtype == "float32":
            words += read_words(b, b.add(safe, ir.Constant(I64, 16)), 4, GLOBAL)
            numbers = [b.bitcast(word, F32) for word in words]
            made = [_split(b, *numbers[2 * i : 2 * i + 2], "bfloat16") for i in range(4)]
            words = [rounded for rounded, _ in made] + [rest for _, rest in made]
        return [b.select(there, word, ir.Constant(I32, 0)) for word in words]

    return primitive((int32,) * (8 if dtype == "float32" else 4), int64, int64, emit=emit)


def _add_row_products(dtype: str) -> Any:
    kind, wide = KINDS[_half(dtype)], dtype == "float32"

    def emit(b: Any, sums: Any, *values: Any) -> list[Any]:
        c, made = parts(b, sums, 16), list[Any]()
        rows = [parts(b, row, 8 if wide else 4) for row in values[:8]]
        rights = [parts(b, right, 4) for right in values[8:]]
        for i in range(4):
            low, high, total = rows[2 * i], rows[2 * i + 1], c[4 * i : 4 * i + 4]
            for step, right in enumerate(rights):
                left = [low[2 * step], high[2 * step], low[2 * step + 1], high[2 * step + 1]]
                total = mma(b, kind, total, left, right[:2])
                total = mma(b, kind, total, left, right[2:])
                if wide:
                    at = 4 + 2 * step
                    total = mma(b, kind, total, [low[at], high[at], low[at + 1], high[at + 1]], right[:2])
            made += total
        return made

    four = types.UniTuple(int32, 8 if wide else 4)
    return primitive(TILE, SUMS, *[four] * 8, *[types.UniTuple(int32, 4)] * 2, emit=emit)


_ROWS = "Eight numbers in a row at each of four addresses that sixteen divides."
_LEFT = "The words of four left factors, of four rows: see the module. Those of float32 and then what rounding leaves."
_ADD = "Add to a tile the products of four left factors and a right one, which is words of numbers and of what is left."
_CHANCES = (
    "Write a lane's words of a tile's four right factors to shared memory, RIGHT bytes apart: numbers and what "
    "rounding leaves, the tile's rows becoming what is summed."
)
_SPLIT = "Two numbers as two words: rounded, and what rounding leaves."
_ROW_WORDS = (
    "The words of eight numbers in a row, two and two; zeros where none are left. Those of float32 as in left_words."
)
_ADD_ROWS = "Add to a tile the products of eight rows, words of eight numbers each, and right factors of two steps."
DTYPES = ("float32", "float16", "bfloat16")
load_rows = by_dtype({t: _load_rows(t)(named(f"load_rows_{t}", _ROWS, "a", "b_", "c", "d")) for t in DTYPES})
left_words = by_dtype({t: _left(t)(named(f"left_words_{t}", _LEFT, "rows")) for t in DTYPES})
add_product = by_dtype(
    {t: _add_product(t)(named(f"add_product_{t}", _ADD, "sums", "left", "h0", "h1", "l0", "l1")) for t in DTYPES}
)
put_chances = by_dtype({t: _put_chances(t)(named(f"put_chances_{t}", _CHANCES, "address", "chances")) for t in DTYPES})
split_words = by_dtype(
    {
        t: primitive((int32, int32), float32, float32, emit=lambda b, x, y, t=t: list(_split(b, x, y, _half(t))))(
            named(f"split_words_{t}", _SPLIT, "x", "y")
        )
        for t in DTYPES
    }
)
row_words = by_dtype({t: _row_words(t)(named(f"row_words_{t}", _ROW_WORDS, "place", "left")) for t in DTYPES})
add_row_products = by_dtype(
    {
        t: _add_row_products(t)(
            named(f"add_row_products_{t}", _ADD_ROWS, "sums", *[f"r{i}" for i in range(8)], "one", "two")
        )
        for t in DTYPES
    }
)
