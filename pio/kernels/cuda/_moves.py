"""One element from one type of elements to another, as ``pio.kernels.copy`` converts it."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda.ptx.emit import F16, F32, I16, I32, I64, asm, int64, load_at, primitive, store_at, void
from pio.kernels.sizes import INTEGERS, size_of


def pair(kind: str) -> tuple[str, str]:
    """Split ``"float32_to_int8"``."""
    source, _, target = kind.partition("_to_")
    return source, target


def _stored(dtype: str) -> Any:
    return ir.IntType(8 * size_of(dtype))


def _widened(b: Any, raw: Any, source: str) -> Any:
    """The float32 of a stored float."""
    if source == "float32":
        return b.bitcast(raw, F32)
    if source == "float16":
        return b.fpext(b.bitcast(raw, F16), F32)
    return b.bitcast(b.shl(b.zext(raw, I32), ir.Constant(I32, 16)), F32)


def _narrowed(b: Any, value: Any, target: str) -> Any:
    """A float32 as a float is stored, rounded to nearest even; NaN stays NaN."""
    if target == "float32":
        return b.bitcast(value, I32)
    text = "cvt.rn.f16.f32 $0, $1;" if target == "float16" else "cvt.rn.bf16.f32 $0, $1;"
    return asm(b, text, "=h,f", I16, [value])


def _whole(b: Any, value: Any, target: str) -> Any:
    """A float32 as int64, towards zero, within what the target holds; NaN is 0."""
    found = asm(b, "cvt.rzi.s64.f32 $0, $1;", "=l,f", I64, [value])  # held at both ends of int64
    strange = b.fcmp_unordered("uno", value, value)
    return _held(b, b.select(strange, ir.Constant(I64, 0), found), target)


def _held(b: Any, value: Any, target: str) -> Any:
    """An int64 within what the target holds."""
    bits = INTEGERS[target]
    if bits == 64:
        return value
    ends = (0, (1 << bits) - 1) if target == "uint8" else (-(1 << bits - 1), (1 << bits - 1) - 1)
    low, high = (ir.Constant(I64, end) for end in ends)
    value = b.select(b.icmp_signed("<", value, low), low, value)
    return b.trunc(b.select(b.icmp_signed(">", value, high), high, value), _stored(target))


def _extended(b: Any, raw: Any, source: str) -> Any:
    """A stored integer as int64."""
    if source == "int64":
        return raw
    return (b.zext if source == "uint8" else b.sext)(raw, I64)


def _convert(b: Any, raw: Any, source: str, target: str) -> Any:
    if source == target:
        return raw
    if source in INTEGERS:
        whole = _extended(b, raw, source)
        return _held(b, whole, target) if target in INTEGERS else _narrowed(b, b.sitofp(whole, F32), target)
    value = _widened(b, raw, source)
    return _whole(b, value, target) if target in INTEGERS else _narrowed(b, value, target)


def _make_move(kind: str) -> Callable[[int, int], None]:
    source, target = pair(kind)

    def emit(b: Any, to: Any, at: Any) -> None:
        raw = load_at(b, at, _stored(source), size_of(source))
        store_at(b, to, _convert(b, raw, source, target), size_of(target))

    @primitive(void, int64, int64, emit=emit)
    def move(to: int, at: int) -> None:
        """Copy one element from one address to another, converted."""

    return move


move = PerDtype(_make_move)
from_size = PerDtype(lambda kind: size_of(pair(kind)[0]))
to_size = PerDtype(lambda kind: size_of(pair(kind)[1]))
alike = PerDtype(lambda kind: int(pair(kind)[0] == pair(kind)[1]))
