"""Sums that a lane keeps in registers, as tuples: none yet, one set added to another, written to shared memory."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from llvmlite import ir

from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda.ptx.emit import (
    F32,
    I32,
    SHARED,
    Words,
    asm,
    float32,
    floats,
    i64,
    int64,
    named,
    numbers,
    primitive,
    read_words,
    void,
)


def _zeros(key: str) -> Any:
    made = primitive((float32,) * int(key), emit=lambda _: [ir.Constant(F32, 0.0)] * int(key))
    return made(named("tile", "Sums of nothing."))


def _add(key: str) -> Any:
    def emit(b: Any, x: Any, y: Any) -> Words:
        return [b.fadd(p, q) for p, q in zip(numbers(b, x), numbers(b, y), strict=True)]

    made = primitive((float32,) * int(key), floats(int(key)), floats(int(key)), emit=emit)
    return made(named("tile", "Sum by sum.", "x", "y"))


zeros, add = PerDtype(_zeros), PerDtype(_add)


def put_sums(count: int, places: Sequence[int]) -> Any:
    """Return a primitive that writes a lane's sums to shared memory, each so many numbers behind an address."""

    def emit(b: Any, address: Any, sums: Any) -> None:
        for place, value in zip(places, numbers(b, sums), strict=True):
            at = b.trunc(b.add(address, i64(4 * place)), I32)
            b.store(value, b.inttoptr(at, F32.as_pointer(SHARED)), align=4)

    return primitive(void, int64, floats(count), emit=emit)(named("tile", "Write a lane's sums.", "address", "sums"))


OUTER_DEPTH: Final = 16  # inputs of a step of ``matmul``
OUTER_LINE: Final = 68  # numbers of a row of its panels: lanes meet few banks twice


def _add_outer(b: Any, sums: Any, left: Any, right: Any, count: Any) -> Words:
    """Four rows by four columns, input by input: those behind the last are not added, as they would change -0."""
    found = numbers(b, sums)
    for i in range(OUTER_DEPTH):
        rows, columns = (
            [b.bitcast(word, F32) for word in read_words(b, b.add(at, i64(4 * OUTER_LINE * i)), 4, SHARED)]
            for at in (left, right)
        )
        inside = b.icmp_signed("<", i64(i), count)
        for at, value in enumerate(found):
            more = asm(b, "fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", F32, [rows[at // 4], columns[at % 4], value])
            found[at] = b.select(inside, more, value)
    return found


add_outer = primitive((float32,) * 16, floats(16), int64, int64, int64, emit=_add_outer)(
    named("tile", "Add the products of up to OUTER_DEPTH inputs.", "sums", "left", "right", "count")
)
