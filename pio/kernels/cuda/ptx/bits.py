"""Bits of numbers."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from typing import Any

from llvmlite import ir

from pio.kernels.cuda.ptx.emit import F32, F64, I32, I64, float32, float64, i32, int32, int64, primitive


@primitive(int64, float32, emit=lambda b, x: b.sext(b.bitcast(x, I32), I64))
def bits_of(x: float) -> int:
    """The bits of a float32, as those of an int32."""


@primitive(float32, int64, emit=lambda b, n: b.bitcast(b.trunc(n, I32), F32))
def of_bits(n: int) -> float:
    """The float32 of these bits."""


@primitive(int32, int64, emit=lambda b, x: b.trunc(x, I32))
def word_of(x: int) -> int:
    """The lower 32 bits, as instructions of tensor cores take them."""


@primitive(int64, int32, emit=lambda b, x: b.sext(x, I64))
def whole_of(x: int) -> int:
    """32 bits as a number with a sign."""


@primitive(int64, int64, emit=lambda b, x: b.ctpop(x))
def ones(x: int) -> int:
    """How many bits are set."""


@primitive(int64, int64, int64, emit=lambda b, x, n: b.lshr(x, n))
def shifted_down(x: int, n: int) -> int:
    """The bits of x, n places lower, zeros above."""


def _times_power(b: Any, p: Any, shifted: Any) -> Any:
    return b.bitcast(b.add(b.bitcast(p, I32), b.shl(b.bitcast(shifted, I32), i32(23))), F32)


@primitive(float32, float32, float32, emit=_times_power)
def times_power(p: float, shifted: float) -> float:
    """P times two to the power that the lowest bits of ``shifted`` are."""


@primitive(
    float64, int64, emit=lambda b, n: b.bitcast(b.shl(b.add(n, ir.Constant(I64, 1023)), ir.Constant(I64, 52)), F64)
)
def power_of_two(n: int) -> float:
    """Two to a power from -1022 to 1023, as float64."""


def _rank(b: Any, x: Any) -> Any:
    bits = b.bitcast(x, I32)
    flip = b.or_(b.ashr(bits, i32(31)), i32(-1 << 31))
    return b.zext(b.xor(bits, flip), I64)


@primitive(int64, float32, emit=_rank)
def rank_of(x: float) -> int:
    """A number from 0 to 2^32 - 1 that grows with a float32."""
