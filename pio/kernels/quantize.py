"""Activations as int8 by groups of 32, with powers of two as scales: what the integer tiles multiply weights with."""

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
from pio.kernels._formats import EXPONENT, FORMATS, GROUP, PAIR, RECORD, START, Format
from pio.kernels._jit import PerDtype, kernel_per_dtype
from pio.kernels.parallel import parallel_kernel_per_dtype
from pio.kernels.simd import LANES, MAGIC, int64, primitive, put_f32, void

BIAS: Final = 127  # of a float32's exponent
NAN: Final = 0x7FC00000

# Exponents of scales: the product with any scale of weights must be a float32, neither infinite nor denormal; keys have
# theirs stored as float16.
RANGES: Final = {name: (-102, 112) for name in FORMATS} | {"key": (-24, 15)}


def _form(name: str) -> Format:
    return FORMATS["int8" if name == "key" else name]


def _quantize_group(b: Any, start: Any, out: Any, g: int, vectors: list[Any], name: str) -> None:
    """Quantize two vectors; where they hold what is no number, or too large a one, the row's sums start from NaN."""
    form, (low, high) = _form(name), RANGES[name]
    # as integers, magnitudes have the same order, and NaN is the largest
    sizes = [b.and_(b.bitcast(v, ll.I32X16), ir.Constant(ll.I32X16, [0x7FFFFFFF] * LANES)) for v in vectors]

    def i32(value: int) -> Any:
        return ir.Constant(ll.I32, value)

    def larger(x: Any, y: Any) -> Any:
        return b.select(b.icmp_signed(">", x, y), x, y)

    largest = ll.fold(b, larger(*sizes), larger)
    # the exponent with which the largest is 64 or more, but rounds to no more than 127: from 127.5 on, the next
    power = b.sub(b.and_(b.add(largest, i32(1 << 16)), i32(255 << EXPONENT)), i32(6 << EXPONENT))
    bad = b.icmp_signed(">=", largest, i32((BIAS + 6 + high << EXPONENT) + (0x7F << 16)))
    with b.if_then(bad, likely=False):
        ll.store(b, start, i32(NAN), 4)
    power = larger(b.select(bad, i32(BIAS << EXPONENT), power), i32(BIAS + low << EXPONENT))
    inverse = ll.splat(b, b.bitcast(b.sub(i32(2 * BIAS << EXPONENT), power), ll.F32))
    magic = ll.constant(MAGIC)
    whole = [
        b.sub(b.bitcast(b.fadd(b.fmul(v, inverse), magic), ll.I32X16), b.bitcast(magic, ll.I32X16)) for v in vectors
    ]
    for i, numbers in enumerate(whole):
        ll.store(b, ll.at(b, out, (GROUP * g + LANES * i, 1)), b.trunc(numbers, ir.VectorType(ll.I8, LANES)), 1)
    ll.store(b, ll.at(b, out, (PAIR + 4 * g, 1)), b.sub(power, i32(BIAS << EXPONENT)), 4)
    total = ll.fold(b, b.add(*whole), b.add)
    place = ll.at(b, out, (PAIR + 8 + 4 * g, 1))
    if form.minima:
        ll.store(b, place, b.fmul(b.bitcast(power, ll.F32), b.sitofp(total, ll.F32)), 4)
    else:
        ll.store(b, place, b.mul(total, i32(-form.offset)), 4)


def _make_quantize_pair(name: str) -> Callable[[int, int, int, int], None]:
    def emit(b: Any, start: Any, out: Any, x: Any, n: Any) -> None:
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
            _quantize_group(b, start, out, g, vectors[2 * g : 2 * g + 2], name)

    @primitive(void, int64, int64, int64, int64, emit=emit)
    def quantize_pair(start: int, out: int, x: int, n: int) -> None:
        """Quantize the first n of 64 numbers, zeros behind them, to a record of the row that begins at start."""
        n = min(n, PAIR)
        values = [*(ctypes.c_float * n).from_address(x), *[0.0] * (PAIR - n)]
        for g in range(2):
            _quantize_group_python(start, out, g, values[GROUP * g : GROUP * (g + 1)], name)

    return quantize_pair


def _quantize_group_python(start: int, out: int, g: int, values: list[float], name: str) -> None:
    form, (low, high) = _form(name), RANGES[name]
    largest, exponent = max(map(abs, values)), low
    if not all(map(math.isfinite, values)) or largest >= math.ldexp(127.5, high):
        ctypes.c_float.from_address(start).value = math.nan
        values, exponent = [0.0] * GROUP, 0
    elif largest > 0.0:
        exponent = max(math.frexp(largest / 127.5)[1], low)
    whole = [round(math.ldexp(v, -exponent)) for v in values]
    (ctypes.c_int8 * GROUP).from_address(out + GROUP * g)[:] = whole
    ctypes.c_int32.from_address(out + PAIR + 4 * g).value = exponent << EXPONENT
    if form.minima:
        ctypes.c_float.from_address(out + PAIR + 8 + 4 * g).value = math.ldexp(sum(whole), exponent)
    else:
        ctypes.c_int32.from_address(out + PAIR + 8 + 4 * g).value = -form.offset * sum(whole)


quantize_pair: PerDtype[Callable[[int, int, int, int], None]] = PerDtype(_make_quantize_pair)


@kernel_per_dtype
def quantize_row(out: int, x: int, k: int) -> None:
    """Quantize one row.

    scale[g] = the least power of two with which no |x| rounds to more than 127, q = round(x / scale)

    Shapes: x float32 (k,); out (16 + 80 ceil(k / 64),) bytes, laid out as ``_formats`` says. No sums but exact ones.
    """
    put_f32(out, 0.0)
    for p in range((k + PAIR - 1) // PAIR):
        quantize_pair(out, out + START + RECORD * p, x + 4 * PAIR * p, k - PAIR * p)


@parallel_kernel_per_dtype
def quantize(out: int, x: int, rows: int, k: int, part: int, parts: int) -> None:
    """Quantize rows of activations for weights of the kernel's format, split by rows.

    scale[r, g] = the least power of two with which no |x| rounds to more than 127, q = round(x / scale), halves to even

    Shapes: x float32 (rows, k); out (rows, 16 + 80 ceil(k / 64)) bytes, laid out as ``_formats`` says. out must not
    overlap x. A row with NaN, infinity or what is beyond 1e36 has sums that start from NaN.
    """
    pairs = (k + PAIR - 1) // PAIR
    for r in range(part * rows // parts, (part + 1) * rows // parts):
        quantize_row(out + r * (START + pairs * RECORD), x + 4 * r * k, k)
