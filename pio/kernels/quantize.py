"""Activations as int8 by groups of 32: what the integer tiles multiply weights with."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._formats import FORMATS, GROUP, PAIR, RECORD, Format
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import LANES, int64, primitive, void

LARGEST: Final = 127.0
SMALLEST: Final = 1e-30  # a group of nothing larger is one of zeros: its inverse would not be finite
MAGIC: Final = 12_582_912.0  # 1.5 * 2^23: adding it rounds to a whole number, in the lowest bits


def _quantize_group(b: Any, out: Any, g: int, vectors: list[Any], form: Format) -> None:
    """Quantize two vectors; NaN and infinity give a scale that is not finite."""
    # as integers, magnitudes have the same order, and NaN is the largest
    sizes = [b.and_(b.bitcast(v, ll.I32X16), ir.Constant(ll.I32X16, [0x7FFFFFFF] * LANES)) for v in vectors]

    def larger(x: Any, y: Any) -> Any:
        return b.select(b.icmp_signed(">", x, y), x, y)

    largest = b.bitcast(ll.fold(b, larger(*sizes), larger), ll.F32)
    none, zero = b.fcmp_ordered("<=", largest, ir.Constant(ll.F32, SMALLEST)), ir.Constant(ll.F32, 0.0)
    scale = b.select(none, zero, b.fmul(largest, ir.Constant(ll.F32, 1 / LARGEST)))
    inverse = ll.splat(b, b.select(none, zero, b.fdiv(ir.Constant(ll.F32, LARGEST), largest)))
    magic = ll.constant(MAGIC)
    whole = [
        b.sub(b.bitcast(b.fadd(b.fmul(v, inverse), magic), ll.I32X16), b.bitcast(magic, ll.I32X16)) for v in vectors
    ]
    for i, numbers in enumerate(whole):
        ll.store(b, ll.at(b, out, (GROUP * g + LANES * i, 1)), b.trunc(numbers, ir.VectorType(ll.I8, LANES)), 1)
    ll.store(b, ll.at(b, out, (PAIR + 4 * g, 1)), scale, 4)
    total = ll.fold(b, b.add(*whole), b.add)
    place = ll.at(b, out, (PAIR + 8 + 4 * g, 1))
    if form.minima:
        ll.store(b, place, b.fmul(scale, b.sitofp(total, ll.F32)), 4)
    else:
        ll.store(b, place, b.mul(total, ir.Constant(ll.I32, -form.offset)), 4)


def _make_quantize_pair(name: str) -> Callable[[int, int, int], None]:
    form = FORMATS[name]

    def emit(b: Any, out: Any, x: Any, n: Any) -> None:
        places = [ll.at(b, x, (4 * LANES * i, 1)) for i in range(4)]
        slots = [cgutils.alloca_once(b, ll.F32X16) for _ in places]
        with b.if_else(b.icmp_signed(">=", n, ll.i64_const(PAIR)), likely=True) as (whole, some):
            with whole:
                for slot, place in zip(slots, places, strict=True):
                    b.store(ll.load_as(b, place, "float32"), slot)
            with some:
                for i, (slot, place) in enumerate(zip(slots, places, strict=True)):
                    left = b.sub(n, ll.i64_const(LANES * i))
                    left = b.select(b.icmp_signed("<", left, ll.i64_const(0)), ll.i64_const(0), left)
                    left = b.select(b.icmp_signed(">", left, ll.i64_const(LANES)), ll.i64_const(LANES), left)
                    b.store(ll.load_part_as(b, place, left, "float32"), slot)
        vectors = [b.load(slot) for slot in slots]
        for g in range(2):
            _quantize_group(b, out, g, vectors[2 * g : 2 * g + 2], form)

    @primitive(void, int64, int64, int64, emit=emit)
    def quantize_pair(out: int, x: int, n: int) -> None:
        """Quantize the first n of 64 numbers, zeros behind them, to a record."""
        n = min(n, PAIR)
        values = [*(ctypes.c_float * n).from_address(x), *[0.0] * (PAIR - n)]
        for g in range(2):
            _quantize_group_python(out, g, values[GROUP * g : GROUP * (g + 1)], form)

    return quantize_pair


def _quantize_group_python(out: int, g: int, values: list[float], form: Format) -> None:
    def single(x: float) -> float:
        return ctypes.c_float(x).value

    sizes = [abs(v) for v in values]
    largest = math.nan if any(v != v for v in values) else max(sizes)
    none = largest <= single(SMALLEST)
    scale = 0.0 if none else single(largest * single(1 / LARGEST))
    inverse = 0.0 if none else single(LARGEST / largest)
    products = [single(v * inverse) for v in values]
    whole = [round(p) if math.isfinite(p) else 0 for p in products]
    (ctypes.c_int8 * GROUP).from_address(out + GROUP * g)[:] = whole
    ctypes.c_float.from_address(out + PAIR + 4 * g).value = scale
    if form.minima:
        ctypes.c_float.from_address(out + PAIR + 8 + 4 * g).value = scale * sum(whole)
    else:
        ctypes.c_int32.from_address(out + PAIR + 8 + 4 * g).value = -form.offset * sum(whole)


quantize_pair: PerDtype[Callable[[int, int, int], None]] = PerDtype(_make_quantize_pair)


@kernel_per_dtype
def quantize_row(out: int, x: int, k: int) -> None:
    """Quantize one row.

    scale[g] = max |x| / 127 over the group, q = round(x / scale)

    Shapes: x float32 (k,); out (ceil(k / 64), 80) bytes, laid out as ``_formats`` says. No sums but exact ones.
    """
    for p in range((k + PAIR - 1) // PAIR):
        quantize_pair(out + RECORD * p, x + 4 * PAIR * p, k - PAIR * p)


@parallel_kernel_per_dtype
def quantize(out: int, x: int, rows: int, k: int, part: int, parts: int) -> None:
    """Quantize rows of activations for weights of the kernel's format, split by rows.

    scale[r, g] = max |x| / 127 over the group, q = round(x / scale), halves to even

    Shapes: x float32 (rows, k); out (rows, ceil(k / 64), 80) bytes, laid out as ``_formats`` says. out must not overlap
    x. A group with NaN or infinity gets a scale that is not finite.
    """
    pairs = (k + PAIR - 1) // PAIR
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        quantize_row(out + r * pairs * RECORD, x + 4 * r * k, k)
