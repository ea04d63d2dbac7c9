"""More primitives of kernels for GPUs: bits of floats, what lanes of a warp exchange, and atomics; see ``ptx``."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from pio.kernels.cuda.ptx import F32, GLOBAL, I32, I64, SHARED, float32, float64, int32, int64, primitive
from pio.kernels.cuda.ptx_scalars import F64, asm


def _constant(value: int) -> Any:
    return ir.Constant(I32, value)


# bits of floats


@primitive(int32, int64, emit=lambda b, x: b.trunc(x, I32))
def word_of(x: int) -> int:
    """The lower 32 bits, as instructions of tensor cores take them."""


@primitive(int64, int32, emit=lambda b, x: b.sext(x, I64))
def whole_of(x: int) -> int:
    """32 bits as a number with a sign."""


@primitive(int64, float32, emit=lambda b, x: b.sext(b.bitcast(x, I32), I64))
def bits_of(x: float) -> int:
    """The bits of a float32, as an int32 has them."""


@primitive(float32, int64, emit=lambda b, x: b.bitcast(b.trunc(x, I32), F32))
def float_of(bits: int) -> float:
    """The float32 of 32 bits."""


def _times_power(b: Any, p: Any, shifted: Any) -> Any:
    return b.bitcast(b.add(b.bitcast(p, I32), b.shl(b.bitcast(shifted, I32), _constant(23))), F32)


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
    flip = b.or_(b.ashr(bits, _constant(31)), _constant(-1 << 31))
    return b.zext(b.xor(bits, flip), I64)


@primitive(int64, float32, emit=_rank)
def rank_of(x: float) -> int:
    """A number from 0 to 2^32 - 1 that grows with a float32."""


@primitive(int64, int64, int64, emit=lambda b, x, n: b.lshr(x, n))
def shifted_down(x: int, n: int) -> int:
    """The bits of x, n places lower, zeros above."""


# warps


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


# atomics of whole numbers: what they leave does not depend on who comes first


def _atomic(text: str, space: int, ty: Any) -> Callable[..., Any]:
    letter = "l" if ty is I64 else "r"
    place = "r" if space == SHARED else "l"

    def emit(b: Any, address: Any, value: Any) -> Any:
        at = b.trunc(address, I32) if space == SHARED else address
        value = value if ty is I64 else b.trunc(value, ty)
        found = asm(
            b, f"{text} $0, [$1], $2;", f"={letter},{place},{letter},~{{memory}}", ty, [at, value], effects=True
        )
        return found if ty is I64 else b.sext(found, I64)

    return emit


@primitive(int64, int64, int64, emit=_atomic("atom.shared.add.u32", SHARED, I32))
def add_shared(address: int, value: int) -> int:
    """Add to an int32 of shared memory; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.shared.min.s64", SHARED, I64))
def lower_shared(address: int, value: int) -> int:
    """Make an int64 of shared memory no larger than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.min.s64", GLOBAL, I64))
def lower_i64(address: int, value: int) -> int:
    """Make an int64 no larger than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.min.s32", GLOBAL, I32))
def lower_i32(address: int, value: int) -> int:
    """Make an int32 no larger than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.max.s32", GLOBAL, I32))
def raise_i32(address: int, value: int) -> int:
    """Make an int32 no smaller than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.min.u32", GLOBAL, I32))
def lower_u32(address: int, value: int) -> int:
    """Make 32 bits no larger than others, both without a sign; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.max.u32", GLOBAL, I32))
def raise_u32(address: int, value: int) -> int:
    """Make 32 bits no smaller than others, both without a sign; return what was there."""
