"""Tiles of scores and of sums that a warp holds, as ``fragments`` lays them out."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from pio.kernels.cuda.ptx.emit import F32, I32, I64, asm, float32, int64, primitive, put_words, void
from pio.kernels.cuda.ptx.fragments import SUMS, TILE, parts


@primitive(TILE, emit=lambda b: [ir.Constant(F32, 0.0)] * 16)
def no_sums() -> tuple[float, ...]:
    """A tile of zeros."""


def _seen_scores(b: Any, sums: Any, position: Any, *bounds: Any) -> list[Any]:
    at, made = b.trunc(position, I32), list[Any]()
    unit, (first0, last0, first1, last1) = bounds[:2], [b.trunc(n, I32) for n in bounds[2:]]
    for e, x in enumerate(parts(b, sums, 16)):
        j = b.add(at, ir.Constant(I32, e // 4 * 2 + e % 4 // 2))
        first, last = (first1, last1) if e % 2 else (first0, last0)
        there = b.and_(b.icmp_signed(">=", j, first), b.icmp_signed("<", j, last))
        made.append(b.select(there, b.fmul(x, unit[e % 2]), ir.Constant(F32, -math.inf)))
    return made


@primitive(TILE, SUMS, int64, float32, float32, *[int64] * 4, emit=_seen_scores)
def seen_scores(scores, position, unit0, unit1, first0, last0, first1, last1):  # type: ignore[no-untyped-def]
    """Scores times a unit of each query; -inf where a query does not see: its positions are first <= j < last."""


def _largest_two(b: Any, scores: Any) -> list[Any]:
    p = parts(b, scores, 16)
    made: list[Any] = []
    for q in (0, 1):
        most = p[q]
        for x in p[q + 2 :: 2]:
            most = asm(b, "max.f32 $0, $1, $2;", "=f,f,f", F32, [most, x])
        made.append(most)
    return made


@primitive((float32, float32), SUMS, emit=_largest_two)
def largest_two(scores):  # type: ignore[no-untyped-def]
    """The largest of a lane's elements of each of its two queries."""


def _total_two(b: Any, chances: Any) -> list[Any]:
    p = parts(b, chances, 16)
    made: list[Any] = []
    for q in (0, 1):
        total = p[q]
        for x in p[q + 2 :: 2]:
            total = b.fadd(total, x)
        made.append(total)
    return made


@primitive((float32, float32), SUMS, emit=_total_two)
def total_two(chances):  # type: ignore[no-untyped-def]
    """The sum of a lane's elements of each of its two queries, in the order of rows."""


def _powers(b: Any, scores: Any, base0: Any, base1: Any) -> list[Any]:
    p = parts(b, scores, 16)
    return [
        asm(b, "ex2.approx.f32 $0, $1;", "=f,f", F32, [b.fsub(x, base1 if e % 2 else base0)]) for e, x in enumerate(p)
    ]


@primitive(TILE, SUMS, float32, float32, emit=_powers)
def powers(scores, base0, base1):  # type: ignore[no-untyped-def]
    """Two to the power of what scores are above a base of each query."""


def _store_tile(b: Any, address: Any, sums: Any, stride: Any) -> None:
    p = [b.bitcast(x, I32) for x in parts(b, sums, 16)]
    for q in (0, 1):
        for half in (0, 8):
            put_words(
                b,
                b.add(address, ir.Constant(I64, 2 * half)),
                p[half + q],
                p[half + q + 2],
                p[half + q + 4],
                p[half + q + 6],
            )
        address = b.add(address, stride)


@primitive(void, int64, SUMS, int64, emit=_store_tile)
def store_tile(address, sums, stride):  # type: ignore[no-untyped-def]
    """Write a lane's eight rows of its first query to shared memory, side by side, and those of the second behind."""
