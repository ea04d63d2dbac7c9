"""Copies between any two element types and any strides."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir

from pio.kernels import _llvm as ll
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import LANES, get_i64, int64, load_part, primitive, splat, store_part, void
from pio.kernels.sizes import INTEGERS, size_of

_C_INTEGERS: Final = {
    "int8": ctypes.c_int8,
    "uint8": ctypes.c_uint8,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
}
BLOCK = 32  # a transposed copy goes by blocks of so many rows and columns, which both stay in the first-level cache


def bounds(dtype: str) -> tuple[int, int]:
    """Return the smallest and the largest value of an integer type."""
    bits = INTEGERS[dtype]
    return (0, (1 << bits) - 1) if dtype == "uint8" else (-(1 << bits - 1), (1 << bits - 1) - 1)


def _pair(kind: str) -> tuple[str, str]:
    """Split ``"float32_to_int8"``."""
    source, _, target = kind.partition("_to_")
    return source, target


def _stored(dtype: str) -> Any:
    """Sixteen elements in memory."""
    return ir.VectorType(ir.IntType(INTEGERS[dtype]), LANES) if dtype in INTEGERS else ll.stored(dtype)


def _convert(b: Any, raw: Any, source: str, target: str) -> Any:
    if source == target:
        return raw
    if target in INTEGERS:
        return _clamp(b, raw, source, target) if source in INTEGERS else _truncate(b, raw, source, target)
    if source in INTEGERS:
        return ll.narrow(b, (b.uitofp if source == "uint8" else b.sitofp)(raw, ll.F32X16), target)
    return ll.narrow(b, ll.widen(b, raw, source), target)


def _truncate(b: Any, raw: Any, source: str, target: str) -> Any:
    ty, sign = _stored(target), "u" if target == "uint8" else "s"
    name = f"llvm.fpto{sign}i.sat.v16i{INTEGERS[target]}.v16f32"
    return b.call(ll.function(b, name, ty, [ll.F32X16]), [ll.widen(b, raw, source)])


def _clamp(b: Any, raw: Any, source: str, target: str) -> Any:
    wide = ir.VectorType(ll.I64, LANES)
    value = raw if source == "int64" else (b.zext if source == "uint8" else b.sext)(raw, wide)
    low, high = (ir.Constant(wide, [v] * LANES) for v in bounds(target))
    value = b.select(b.icmp_signed("<", value, low), low, value)
    value = b.select(b.icmp_signed(">", value, high), high, value)
    return value if target == "int64" else b.trunc(value, _stored(target))


def _sticky(x: int) -> int:
    """Set the 40th bit where lower ones are cut: Python goes by way of a float64, and must not round twice."""
    cut = max(x.bit_length() - 40, 0)
    return (x >> cut | (x & (1 << cut) - 1 != 0)) << cut


def _move_python(to: int, at: int, source: str, target: str) -> None:
    if source == target:
        ctypes.memmove(to, at, size_of(source))
        return
    value: float = _C_INTEGERS[source].from_address(at).value if source in INTEGERS else load_part[source](at, 1)[0]
    if target not in INTEGERS:
        store_part[target](to, splat(_sticky(value) if isinstance(value, int) else value), 1)
        return
    low, high = bounds(target)
    whole = 0 if value != value else low if value <= low else high if value >= high else math.trunc(value)
    _C_INTEGERS[target].from_address(to).value = whole


def _make_move(kind: str) -> Callable[[int, int], None]:
    source, target = _pair(kind)

    def emit(b: Any, to: Any, at: Any) -> None:
        if source == target:
            ll.store(b, to, ll.load(b, at, ir.IntType(8 * size_of(source)), 1), 1)
            return
        raw = ll.splat(b, ll.load(b, at, _stored(source).element, 1))
        ll.store(b, to, b.extract_element(_convert(b, raw, source, target), ir.Constant(ll.I32, 0)), 1)

    @primitive(void, int64, int64, emit=emit)
    def move(to: int, at: int) -> None:
        """Copy one element from one address to another, converted."""
        _move_python(to, at, source, target)

    return move


def _make_move_lanes(kind: str) -> Callable[[int, int], None]:
    source, target = _pair(kind)

    def emit(b: Any, to: Any, at: Any) -> None:
        ll.store(b, to, _convert(b, ll.load(b, at, _stored(source), 1), source, target), 1)

    @primitive(void, int64, int64, emit=emit)
    def move_lanes(to: int, at: int) -> None:
        """Copy sixteen elements from one address to another, converted."""
        for i in range(LANES):
            _move_python(to + size_of(target) * i, at + size_of(source) * i, source, target)

    return move_lanes


move, move_lanes = PerDtype(_make_move), PerDtype(_make_move_lanes)
from_size = PerDtype(lambda kind: size_of(_pair(kind)[0]))
to_size = PerDtype(lambda kind: size_of(_pair(kind)[1]))


@kernel_per_dtype
def copy_line(to: int, at: int, n: int, step: int, from_step: int) -> None:
    """Copy a vector, converted.

    to[i * step] = at[i * from_step]

    Shapes: n elements each; steps in elements. The two must not overlap.
    """
    done = 0
    if step == 1 and from_step == 1:
        done = n // LANES * LANES
        for i in range(0, done, LANES):
            move_lanes(to + to_size * i, at + from_size * i)
    for i in range(done, n):
        move(to + to_size * i * step, at + from_size * i * from_step)


@kernel_per_dtype
def copy_plane(to: int, at: int, rows: int, n: int, row: int, step: int, from_row: int, from_step: int) -> None:
    """Copy a matrix, converted.

    to[r * row + i * step] = at[r * from_row + i * from_step]

    Shapes: (rows, n) each; strides in elements. The two must not overlap.
    """
    if step == 1 and from_step == 1:
        for r in range(rows):
            copy_line(to + to_size * r * row, at + from_size * r * from_row, n, step, from_step)
        return
    for r0 in range(0, rows, BLOCK):
        for i0 in range(0, n, BLOCK):
            for r in range(r0, min(r0 + BLOCK, rows)):
                there, here = to + to_size * (r * row + i0 * step), at + from_size * (r * from_row + i0 * from_step)
                copy_line(there, here, min(BLOCK, n - i0), step, from_step)


@parallel_kernel_per_dtype
def copy(to: int, at: int, box: int, part: int, parts: int) -> None:
    """Copy six dimensions, converted; split over threads along the first, or along the last where the first is 1 long.

    to[a * t0 + b * t1 + ...] = at[a * f0 + b * f1 + ...]

    Shapes: box int64 (6, 3): for each dimension its length, then its strides in elements, t and f. The two must not
    overlap.
    """
    n0, t0, f0 = get_i64(box), get_i64(box + 8), get_i64(box + 16)
    n1, t1, f1 = get_i64(box + 24), get_i64(box + 32), get_i64(box + 40)
    n2, t2, f2 = get_i64(box + 48), get_i64(box + 56), get_i64(box + 64)
    n3, t3, f3 = get_i64(box + 72), get_i64(box + 80), get_i64(box + 88)
    n4, t4, f4 = get_i64(box + 96), get_i64(box + 104), get_i64(box + 112)
    n5, t5, f5 = get_i64(box + 120), get_i64(box + 128), get_i64(box + 136)
    first, last = part * n0 // parts, (part + 1) * n0 // parts
    left, right = 0, n5
    if n0 == 1:
        first, last = 0, 1
        left, right = part * n5 // parts, (part + 1) * n5 // parts
    for a in range(first, last):
        for b in range(n1):
            for c in range(n2):
                for d in range(n3):
                    there = to + to_size * (a * t0 + b * t1 + c * t2 + d * t3 + left * t5)
                    here = at + from_size * (a * f0 + b * f1 + c * f2 + d * f3 + left * f5)
                    copy_plane(there, here, n4, right - left, t4, t5, f4, f5)
