"""What the lanes of a warp tell each other."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from typing import Any

from llvmlite import ir

from pio.kernels.cuda.ptx.emit import F32, F64, I32, I64, asm, float32, float64, int64, primitive


def _float_shuffle(b: Any, value: Any, mask: Any) -> Any:
    text = "shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;"
    return asm(b, text, "=f,f,r", F32, [value, b.trunc(mask, I32)], effects=True)


@primitive(float32, float32, int64, emit=_float_shuffle)
def shuffle_xor(value: float, mask: int) -> float:
    """The number of the lane whose index differs in the bits of ``mask``; all lanes of the warp must take part."""


def _shuffle_int(b: Any, value: Any, mask: Any) -> Any:
    text = "shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;"
    return b.sext(asm(b, text, "=r,r,r", I32, [b.trunc(value, I32), b.trunc(mask, I32)], effects=True), I64)


@primitive(int64, int64, int64, emit=_shuffle_int)
def shuffle_xor_i32(value: int, mask: int) -> int:
    """As ``shuffle_xor``, of 32 bits with a sign."""


def _shuffle_from(b: Any, value: Any, lane: Any) -> Any:
    text = "shfl.sync.idx.b32 $0, $1, $2, 31, 0xffffffff;"
    return b.sext(asm(b, text, "=r,r,r", I32, [b.trunc(value, I32), b.trunc(lane, I32)], effects=True), I64)


@primitive(int64, int64, int64, emit=_shuffle_from)
def shuffle_from_i32(value: int, lane: int) -> int:
    """The number of a lane, 32 bits with a sign; all lanes of the warp must take part."""


def _shuffled(b: Any, value: Any, text: str, lane: Any) -> Any:
    low, high = b.trunc(value, I32), b.trunc(b.lshr(value, ir.Constant(I64, 32)), I32)
    lane = b.trunc(lane, I32)
    low, high = (asm(b, text, "=r,r,r", I32, [half, lane], effects=True) for half in (low, high))
    return b.or_(b.zext(low, I64), b.shl(b.zext(high, I64), ir.Constant(I64, 32)))


_UP = "shfl.sync.up.b32 $0, $1, $2, 0, 0xffffffff;"
_XOR = "shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;"


@primitive(int64, int64, int64, emit=lambda b, v, m: _shuffled(b, v, _XOR, m))
def shuffle_xor_i64(value: int, mask: int) -> int:
    """The int64 of the lane whose index differs in the bits of ``mask``; all lanes of the warp must take part."""


@primitive(float64, float64, int64, emit=lambda b, v, m: b.bitcast(_shuffled(b, b.bitcast(v, I64), _XOR, m), F64))
def shuffle_xor_f64(value: float, mask: int) -> float:
    """The float64 of the lane whose index differs in the bits of ``mask``; all lanes of the warp must take part."""


@primitive(float64, float64, int64, emit=lambda b, v, n: b.bitcast(_shuffled(b, b.bitcast(v, I64), _UP, n), F64))
def shuffle_up_f64(value: float, n: int) -> float:
    """The float64 of the lane n places before, or the own where there is none; all lanes of the warp must take part."""


def _ballot(b: Any, value: Any) -> Any:
    text = "{ .reg .pred p; setp.ne.s32 p, $1, 0; vote.sync.ballot.b32 $0, p, 0xffffffff; }"
    return b.zext(asm(b, text, "=r,r", I32, [b.trunc(value, I32)], effects=True), I64)


@primitive(int64, int64, emit=_ballot)
def ballot(value: int) -> int:
    """A bit for each lane of the warp, which all take part: whether it says other than 0."""
