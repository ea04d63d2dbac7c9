"""Sixteen rows of a recurrent state of which each lane holds a column, in registers."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportPrivateUsage=false
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from pio.kernels.cuda.ptx.emit import F32, I64, SHARED, fused, load_at, primitive, read_words, store_at
from pio.kernels.cuda.ptx.fragments import SUMS, TILE, parts
from pio.kernels.sizes import SLICE as COLUMNS

float32, int64, void = types.float32, types.int64, types.void
ROWS = 16


def _at(b: Any, address: Any, nbytes: int) -> Any:
    return b.add(address, ir.Constant(I64, nbytes))


def _there(b: Any, count: Any, i: int) -> Any:
    return b.icmp_signed("<", ir.Constant(I64, i), count)


def _emit_load(b: Any, address: Any, count: Any) -> list[Any]:
    slots: list[Any] = []
    for i in range(ROWS):
        slot = b.alloca(F32)
        b.store(ir.Constant(F32, 0.0), slot)
        with b.if_then(_there(b, count, i)):
            b.store(load_at(b, _at(b, address, 4 * COLUMNS * i), F32, 4), slot)
        slots.append(slot)
    return [b.load(slot) for slot in slots]


@primitive(TILE, int64, int64, emit=_emit_load)
def load_state_rows(address, count):  # type: ignore[no-untyped-def]
    """A lane's column of sixteen rows of COLUMNS numbers, zeros from ``count`` on."""


def _emit_store(b: Any, address: Any, rows: Any, count: Any) -> None:
    for i, x in enumerate(parts(b, rows, ROWS)):
        with b.if_then(_there(b, count, i)):
            store_at(b, _at(b, address, 4 * COLUMNS * i), x, 4)


@primitive(void, int64, SUMS, int64, emit=_emit_store)
def store_state_rows(address, rows, count):  # type: ignore[no-untyped-def]
    """Write a lane's column of sixteen rows, those before ``count``."""


def _numbers(b: Any, address: Any) -> list[Any]:
    """Sixteen numbers of shared memory."""
    words = [word for i in range(4) for word in read_words(b, _at(b, address, 16 * i), 4, SHARED)]
    return [b.bitcast(word, F32) for word in words]


def _emit_dot(b: Any, total: Any, rows: Any, address: Any) -> Any:
    for x, factor in zip(parts(b, rows, ROWS), _numbers(b, address), strict=True):
        total = fused(b, factor, x, total)
    return total


@primitive(float32, float32, SUMS, int64, emit=_emit_dot)
def dot_rows(total, rows, address):  # type: ignore[no-untyped-def]
    """Add to a number the products of a lane's sixteen rows and sixteen numbers of shared memory, in order."""


def _emit_learn(b: Any, rows: Any, address: Any, kept: Any, lesson: Any) -> list[Any]:
    return [
        fused(b, factor, lesson, b.fmul(x, kept))
        for x, factor in zip(parts(b, rows, ROWS), _numbers(b, address), strict=True)
    ]


@primitive(TILE, SUMS, int64, float32, float32, emit=_emit_learn)
def learn_rows(rows, address, kept, lesson):  # type: ignore[no-untyped-def]
    """Each of sixteen rows times what is kept, plus a number of shared memory times what is learned."""
