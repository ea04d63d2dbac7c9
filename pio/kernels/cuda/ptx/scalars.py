"""Arithmetic, each step rounded by itself, and numbers of one type made of another."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pio.kernels.cuda.ptx.emit import F16, F32, F64, I32, I64, asm, float32, float64, fused, int64, primitive


@primitive(float32, float32, float32, float32, emit=fused)
def fma(x: float, y: float, z: float) -> float:
    """``x * y + z``, rounded once."""


@primitive(float32, float32, emit=lambda b, x: asm(b, "rcp.rn.f32 $0, $1;", "=f,f", F32, [x]))
def reciprocal(x: float) -> float:
    """``1 / x``, rounded to nearest."""


@primitive(float32, float32, emit=lambda b, x: asm(b, "sqrt.rn.f32 $0, $1;", "=f,f", F32, [x]))
def square_root(x: float) -> float:
    """The square root, rounded to nearest."""


@primitive(float32, float32, emit=lambda b, x: asm(b, "ex2.approx.f32 $0, $1;", "=f,f", F32, [x]))
def exp2(x: float) -> float:
    """Two to a power, within two units in the last place."""


@primitive(float32, float64, emit=lambda b, x: b.fptrunc(x, F32))
def single(x: float) -> float:
    """A number as float32."""


@primitive(int64, int64, int64, emit=lambda b, x, y: b.udiv(x, y))
def quotient(x: int, y: int) -> int:
    """How often y goes into x, neither below 0, y not 0."""


def _binary(text: str, letter: str) -> Callable[..., Any]:
    return lambda b, x, y: asm(b, text + " $0, $1, $2;", f"={letter},{letter},{letter}", x.type, [x, y])


@primitive(float32, float32, float32, emit=_binary("div.rn.f32", "f"))
def divide(x: float, y: float) -> float:
    """``x / y``, rounded to nearest."""


@primitive(float32, float32, float32, emit=_binary("max.f32", "f"))
def maximum(x: float, y: float) -> float:
    """The larger of two; of a number and a NaN the number."""


@primitive(float32, float32, float32, emit=lambda b, x, y: asm(b, "max.NaN.f32 $0, $1, $2;", "=f,f,f", F32, [x, y]))
def maximum_or_nan(x: float, y: float) -> float:
    """The larger of two numbers, NaN where either is none."""


@primitive(float32, float32, float32, emit=_binary("min.f32", "f"))
def minimum(x: float, y: float) -> float:
    """The smaller of two; of a number and a NaN the number."""


@primitive(float32, float32, emit=lambda b, x: asm(b, "abs.f32 $0, $1;", "=f,f", F32, [x]))
def magnitude(x: float) -> float:
    """The number without its sign."""


@primitive(float32, float32, float32, emit=_binary("add.rn.f32", "f"))
def plus(x: float, y: float) -> float:
    """``x + y``, rounded by itself whatever stands around it."""


@primitive(float32, float32, float32, emit=_binary("mul.rn.f32", "f"))
def times(x: float, y: float) -> float:
    """``x * y``, rounded by itself whatever stands around it."""


@primitive(float64, float64, float64, emit=_binary("add.rn.f64", "d"))
def plus_f64(x: float, y: float) -> float:
    """``x + y`` in float64, rounded by itself whatever stands around it."""


@primitive(float64, float64, float64, emit=_binary("mul.rn.f64", "d"))
def times_f64(x: float, y: float) -> float:
    """``x * y`` in float64, rounded by itself whatever stands around it."""


@primitive(
    float64,
    float64,
    float64,
    float64,
    emit=lambda b, x, y, z: asm(b, "fma.rn.f64 $0, $1, $2, $3;", "=d,d,d,d", F64, [x, y, z]),
)
def fma_f64(x: float, y: float, z: float) -> float:
    """``x * y + z`` in float64, rounded once."""


@primitive(float32, int64, emit=lambda b, x: b.sitofp(x, F32))
def single_of(x: int) -> float:
    """A whole number as float32."""


@primitive(int64, float64, emit=lambda b, x: asm(b, "cvt.rzi.s64.f64 $0, $1;", "=l,d", I64, [x]))
def truncated(x: float) -> int:
    """A float64 without what is behind its point."""


@primitive(int64, float32, emit=lambda b, x: b.sext(asm(b, "cvt.rni.s32.f32 $0, $1;", "=r,f", I32, [x]), I64))
def round_to_int(x: float) -> int:
    """The nearest whole number, halves to even; 0 for NaN."""


@primitive(float32, float32, emit=lambda b, x: asm(b, "cvt.rni.f32.f32 $0, $1;", "=f,f", F32, [x]))
def rint(x: float) -> float:
    """The nearest whole number as a float, halves to even."""


@primitive(float32, float32, emit=lambda b, x: b.fpext(b.fptrunc(x, F16), F32))
def as_f16(x: float) -> float:
    """A number rounded to float16."""
