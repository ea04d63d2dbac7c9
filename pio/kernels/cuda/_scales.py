"""Scales of groups of activations and what is kept of numbers, in 32 bits, which are half the work of 64.

The kernel that quantizes rows and those that quantize what they multiply share them, and so their bits.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportReturnType=false
from __future__ import annotations

from typing import Any

from llvmlite import ir

from pio.kernels._formats import EXPONENT
from pio.kernels.cuda.ptx.emit import F32, I32, I64, asm, float32, i32, int64, primitive

BIAS = 127  # of a float32's exponent
LOWEST, HIGHEST = -102, 112  # exponents of scales, so that the product with any scale of weights is a normal float32
TOO_LARGE = ((BIAS + 6 + HIGHEST) << EXPONENT) + (0x7F << 16)  # bits from which on a number is none, or beyond


def _larger(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed(">", x, y), x, y)


@primitive(int64, float32, emit=lambda b, x: b.sext(b.and_(b.bitcast(x, I32), i32(0x7FFFFFFF)), I64))
def magnitude(x: float) -> int:
    """The bits of a number without its sign: as integers they have the order of magnitudes, and NaN is the largest."""


@primitive(int64, int64, int64, emit=lambda b, x, y: b.sext(_larger(b, b.trunc(x, I32), b.trunc(y, I32)), I64))
def larger(x: int, y: int) -> int:
    """The larger of two numbers of 32 bits."""


def _power(b: Any, largest: Any) -> Any:
    bits = b.trunc(largest, I32)
    rounded = b.and_(b.add(bits, i32(1 << 16)), i32(255 << EXPONENT))
    power = b.sub(rounded, i32(6 << EXPONENT))
    power = b.select(b.icmp_signed(">=", bits, i32(TOO_LARGE)), i32(BIAS << EXPONENT), power)
    return b.sext(_larger(b, power, i32((BIAS + LOWEST) << EXPONENT)), I64)


@primitive(int64, int64, emit=_power)
def power_of(largest: int) -> int:
    """The bits of a group's scale, by those of its largest magnitude: 1 where that is no number, or too large."""


def _whole(b: Any, x: Any, largest: Any, power: Any) -> Any:
    inverse = b.bitcast(b.sub(i32(2 * BIAS << EXPONENT), b.trunc(power, I32)), F32)
    nearest = asm(b, "cvt.rni.s32.f32 $0, $1;", "=r,f", I32, [b.fmul(x, inverse)])
    none = b.icmp_signed(">=", b.trunc(largest, I32), i32(TOO_LARGE))
    return b.sext(b.select(none, ir.Constant(I32, 0), nearest), I64)


@primitive(int64, float32, int64, int64, emit=_whole)
def whole_of(x: float, largest: int, power: int) -> int:
    """What is kept of a number of a group with that largest magnitude and scale: 0 where it holds no numbers."""
