"""Vector primitives: sixteen float32 lanes on every target, as LLVM vector types.

LLVM maps sixteen lanes to one AVX-512 register, two of AVX2 or four of NEON, so a kernel is written once and its sums
have the same order, hence the same bits, everywhere. Each primitive is a plain Python function, which says what it
does and runs where the JIT is disabled, and an emitter of LLVM code, which replaces it everywhere else.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportAttributeAccessIssue=false, reportOptionalCall=false
# pyright: reportUntypedClassDecorator=false, reportPrivateImportUsage=false, reportReturnType=false
from __future__ import annotations

import ctypes
import inspect
import math
import operator
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from llvmlite import ir
from numba import types
from numba.core.datamodel.models import PrimitiveModel
from numba.core.datamodel.registry import register_default
from numba.core.imputils import lower_builtin
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic

from pio.kernels import _llvm as ll
from pio.kernels._jit import by_dtype
from pio.kernels._llvm import ITEMSIZE, LANES
from pio.kernels._processor import WIDE as WIDE
from pio.kernels._settings import JIT

F = TypeVar("F", bound=Callable[..., Any])

MAGIC: Final = 12_582_912.0  # 1.5 * 2^23: adding it rounds to a whole number, in the lowest bits

int64, int32, float32, float64, void = types.int64, types.int32, types.float32, types.float64, types.void


class Vec(tuple[float, ...]):
    """Sixteen float32 lanes; this class is what kernels see where the JIT is disabled."""

    def __add__(self, other: Vec) -> Vec:  # type: ignore[override]
        return _lanes(operator.add, self, other)

    def __sub__(self, other: Vec) -> Vec:
        return _lanes(operator.sub, self, other)

    def __mul__(self, other: Vec) -> Vec:  # type: ignore[override]
        return _lanes(operator.mul, self, other)

    def __truediv__(self, other: Vec) -> Vec:
        return _lanes(
            lambda a, b: (
                a / b if b else math.nan if a == 0 or a != a else math.copysign(math.inf, a * math.copysign(1, b))
            ),
            self,
            other,
        )


def _single(x: float) -> float:
    """Round to float32, to infinity where it does not fit."""
    return ctypes.c_float(x).value


def _lanes(f: Callable[..., float], *vectors: Sequence[float]) -> Vec:
    return Vec(_single(f(*lane)) for lane in zip(*vectors, strict=True))


def _fold_python(v: Sequence[float], combine: Callable[[float, float], float]) -> float:
    lanes = list(v)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [_single(combine(a, c)) for a, c in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


class _VecType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="F32x16")


VEC: Final = _VecType()


@register_default(_VecType)
class _VecModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ll.F32X16)


def _register(op: Any, instruction: str) -> None:
    @infer_global(op)
    class _Typing(ConcreteTemplate):
        cases = (signature(VEC, VEC, VEC),)

    @lower_builtin(op, VEC, VEC)
    def _lower(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return getattr(b, instruction)(*args)


for _op, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _register(_op, _name)


def primitive(result: Any, *arguments: Any, emit: Callable[..., Any]) -> Callable[[F], F]:
    """Replace a Python function by LLVM code wherever kernels are compiled.

    Args:
        result: Numba type of the result.
        *arguments: Numba types of the arguments.
        emit: Called with the IR builder and the argument values; returns the result value, None for void.
    """

    def decorate(fn: F) -> F:
        if not JIT:
            return fn
        sig = result(*arguments)

        def define(typing_context: Any, *_: Any) -> Any:
            def codegen(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
                ll.add_attributes(context, builder.function)
                value = emit(builder, *args)
                return context.get_dummy_value() if value is None else value

            return sig, codegen

        own = inspect.signature(fn)
        context = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        define.__signature__ = own.replace(parameters=[context, *own.parameters.values()])  # type: ignore[attr-defined]
        define.__name__ = define.__qualname__ = fn.__name__
        define.__doc__, define.__module__ = fn.__doc__, fn.__module__
        return intrinsic(define)

    return decorate


# --- memory ---


def _decode(raw: bytes, dtype: str) -> Vec:
    n = len(raw) // ITEMSIZE[dtype]
    if dtype == "bfloat16":
        values = [struct.unpack("<f", struct.pack("<I", h << 16))[0] for h in struct.unpack(f"<{n}H", raw)]
    else:
        values = struct.unpack(f"<{n}{'e' if dtype == 'float16' else 'f'}", raw)
    return Vec([*values, *[0.0] * (LANES - n)])


def _encode_one(x: float, dtype: str) -> bytes:
    if dtype == "float32":
        return struct.pack("<f", _single(x))
    if dtype == "float16":
        try:
            return struct.pack("<e", x)
        except OverflowError:
            return struct.pack("<e", math.copysign(math.inf, x))
    bits = struct.unpack("<I", struct.pack("<f", _single(x)))[0]
    half = bits >> 16 | 0x40 if x != x else bits + 0x7FFF + (bits >> 16 & 1) >> 16
    return struct.pack("<H", half)


def _make_load(dtype: str) -> Callable[[int], Vec]:
    @primitive(VEC, int64, emit=lambda b, address: ll.load_as(b, address, dtype))
    def load(address: int) -> Vec:
        """Read sixteen elements at an address."""
        return _decode(ctypes.string_at(address, LANES * ITEMSIZE[dtype]), dtype)

    return load


def _make_load_part(dtype: str) -> Callable[[int, int], Vec]:
    @primitive(VEC, int64, int64, emit=lambda b, address, n: ll.load_part_as(b, address, n, dtype))
    def load_part(address: int, n: int) -> Vec:
        """Read n <= 16 elements at an address; the other lanes are zero."""
        return _decode(ctypes.string_at(address, n * ITEMSIZE[dtype]), dtype)

    return load_part


def _make_store(dtype: str) -> Callable[[int, Vec], None]:
    def emit(b: Any, address: Any, value: Any) -> None:
        ll.store(b, address, ll.narrow(b, value, dtype), ITEMSIZE[dtype])

    @primitive(void, int64, VEC, emit=emit)
    def store(address: int, value: Vec) -> None:
        """Write sixteen lanes to an address, rounded to the element type."""
        ctypes.memmove(address, b"".join(_encode_one(x, dtype) for x in value), LANES * ITEMSIZE[dtype])

    return store


def _make_store_part(dtype: str) -> Callable[[int, Vec, int], None]:
    @primitive(void, int64, VEC, int64, emit=lambda b, address, v, n: ll.store_part_as(b, address, v, n, dtype))
    def store_part(address: int, value: Vec, n: int) -> None:
        """Write the first n <= 16 lanes to an address, rounded to the element type."""
        ctypes.memmove(address, b"".join(_encode_one(x, dtype) for x in value[:n]), n * ITEMSIZE[dtype])

    return store_part


_LOAD = {d: _make_load(d) for d in ITEMSIZE}
_LOAD_PART = {d: _make_load_part(d) for d in ITEMSIZE}
_STORE = {d: _make_store(d) for d in ITEMSIZE}
_STORE_PART = {d: _make_store_part(d) for d in ITEMSIZE}

load_f32, load_part_f32 = _LOAD["float32"], _LOAD_PART["float32"]
store_f32, store_part_f32 = _STORE["float32"], _STORE_PART["float32"]
load_f16_lanes = _LOAD["float16"]
load, load_part = by_dtype(_LOAD), by_dtype(_LOAD_PART)  # by the kernel's element type
store, store_part = by_dtype(_STORE), by_dtype(_STORE_PART)
itemsize = by_dtype(ITEMSIZE)


@primitive(float32, int64, emit=lambda b, address: ll.load(b, address, ll.F32, 4))
def get_f32(address: int) -> float:
    """Read one float32 at an address."""
    return ctypes.c_float.from_address(address).value


@primitive(void, int64, float32, emit=lambda b, address, value: ll.store(b, address, value, 4))
def put_f32(address: int, value: float) -> None:
    """Write one float32 to an address."""
    ctypes.c_float.from_address(address).value = value


@primitive(int64, int64, emit=lambda b, address: b.sext(ll.load(b, address, ll.I32, 4), ll.I64))
def get_i32(address: int) -> int:
    """Read one int32 at an address, widened to int64."""
    return ctypes.c_int32.from_address(address).value


@primitive(void, int64, int64, emit=lambda b, address, value: ll.store(b, address, b.trunc(value, ll.I32), 4))
def put_i32(address: int, value: int) -> None:
    """Write one int32 to an address."""
    ctypes.c_int32.from_address(address).value = value


@primitive(int64, int64, emit=lambda b, address: ll.load(b, address, ll.I64, 8))
def get_i64(address: int) -> int:
    """Read one int64 at an address."""
    return ctypes.c_int64.from_address(address).value


@primitive(void, int64, int64, emit=lambda b, address, value: ll.store(b, address, value, 8))
def put_i64(address: int, value: int) -> None:
    """Write one int64 to an address."""
    ctypes.c_int64.from_address(address).value = value


@primitive(float64, int64, emit=lambda b, address: ll.load(b, address, ll.F64, 8))
def get_f64(address: int) -> float:
    """Read one float64 at an address."""
    return ctypes.c_double.from_address(address).value


@primitive(void, int64, float64, emit=lambda b, address, value: ll.store(b, address, value, 8))
def put_f64(address: int, value: float) -> None:
    """Write one float64 to an address."""
    ctypes.c_double.from_address(address).value = value


@primitive(int64, int64, emit=lambda b, address: b.zext(ll.load(b, address, ll.I8, 1), ll.I64))
def get_u8(address: int) -> int:
    """Read one byte at an address, widened to int64."""
    return ctypes.c_uint8.from_address(address).value


@primitive(void, int64, int64, emit=lambda b, address, value: ll.store(b, address, b.trunc(value, ll.I8), 1))
def put_u8(address: int, value: int) -> None:
    """Write the lowest byte of a number to an address."""
    ctypes.c_uint8.from_address(address).value = value & 255


def _emit_store_u8(b: Any, address: Any, v: Any) -> None:
    whole = b.bitcast(b.fadd(v, ll.constant(MAGIC)), ll.I32X16)  # a NaN is some byte
    ll.store(b, address, b.trunc(whole, ir.VectorType(ll.I8, LANES)), 1)


@primitive(void, int64, VEC, emit=_emit_store_u8)
def store_u8(address: int, v: Vec) -> None:
    """Write sixteen lanes from 0 to 255 to an address as bytes, rounded to nearest, halves to even."""
    (ctypes.c_uint8 * LANES).from_address(address)[:] = [round(x) & 255 if math.isfinite(x) else 0 for x in v]


@primitive(float32, int64, emit=lambda b, address: b.fpext(ll.load(b, address, ll.F16, 2), ll.F32))
def get_f16(address: int) -> float:
    """Read one float16 at an address, widened to float32."""
    return _decode(ctypes.string_at(address, 2), "float16")[0]


@primitive(void, int64, float32, emit=lambda b, address, value: ll.store(b, address, b.fptrunc(value, ll.F16), 2))
def put_f16(address: int, value: float) -> None:
    """Write a float32 to an address as float16, rounded to nearest even."""
    ctypes.memmove(address, _encode_one(value, "float16"), 2)


# --- arithmetic ---


@primitive(VEC, float32, emit=ll.splat)
def splat(x: float) -> Vec:
    """Sixteen times x."""
    return Vec([_single(x)] * LANES)


@primitive(VEC, VEC, VEC, VEC, emit=ll.fma)
def fma(x: Vec, y: Vec, z: Vec) -> Vec:
    """X * y + z, rounded once where the processor can."""
    return _lanes(lambda a, c, d: a * c + d, x, y, z)


@primitive(VEC, VEC, VEC, emit=ll.maximum)
def maximum(x: Vec, y: Vec) -> Vec:
    """The larger of each lane; a NaN in x stays."""
    return _lanes(lambda a, c: c if a < c else a, x, y)


@primitive(VEC, VEC, VEC, emit=lambda b, x, y: b.select(b.fcmp_ordered("<", y, x), y, x))
def minimum(x: Vec, y: Vec) -> Vec:
    """The smaller of each lane; a NaN in x stays."""
    return _lanes(lambda a, c: c if a > c else a, x, y)


@primitive(VEC, VEC, emit=lambda b, v: b.call(ll.function(b, "llvm.rint.v16f32", ll.F32X16, [ll.F32X16]), [v]))
def rint(v: Vec) -> Vec:
    """Each lane rounded to the nearest whole number, halves to the even one."""
    return _lanes(lambda x: float(round(x)) if math.isfinite(x) else x, v)


@primitive(float32, VEC, emit=lambda b, v: ll.fold(b, v, b.fadd))
def sum_lanes(v: Vec) -> float:
    """Sum of the lanes, by halving."""
    return _fold_python(v, operator.add)


@primitive(float32, VEC, emit=lambda b, v: ll.fold(b, v, lambda x, y: ll.maximum(b, x, y)))
def max_lanes(v: Vec) -> float:
    """Largest lane."""
    return _fold_python(v, lambda a, c: c if a < c else a)


def _emit_keep(b: Any, v: Any, first: Any, last: Any, other: Any) -> Any:
    ty = ir.VectorType(ll.I64, LANES)
    lane = ir.Constant(ty, list(range(LANES)))
    inside = b.and_(b.icmp_signed(">=", lane, ll.splat(b, first)), b.icmp_signed("<", lane, ll.splat(b, last)))
    return b.select(inside, v, ll.splat(b, other))


@primitive(VEC, VEC, int64, int64, float32, emit=_emit_keep)
def keep(v: Vec, first: int, last: int, other: float) -> Vec:
    """Lanes first <= i < last of v, and ``other`` elsewhere."""
    return Vec(x if first <= i < last else other for i, x in enumerate(v))


def _emit_keep_set(b: Any, v: Any, bits: Any, other: Any) -> Any:
    wanted = b.bitcast(b.trunc(bits, ll.I16), ir.VectorType(ir.IntType(1), LANES))
    return b.select(wanted, v, ll.splat(b, other))


@primitive(VEC, VEC, int64, float32, emit=_emit_keep_set)
def keep_set(v: Vec, bits: int, other: float) -> Vec:
    """Lanes of v whose bit is set, of the lowest sixteen, and ``other`` elsewhere."""
    return Vec(x if bits >> i & 1 else other for i, x in enumerate(v))


def _make_copy_element(dtype: str) -> Callable[[int, int], None]:
    ty = ll.I32 if ITEMSIZE[dtype] == 4 else ll.I16

    def emit(b: Any, target: Any, source: Any) -> None:
        ll.store(b, target, ll.load(b, source, ty, ITEMSIZE[dtype]), ITEMSIZE[dtype])

    @primitive(void, int64, int64, emit=emit)
    def copy_element(target: int, source: int) -> None:
        """Copy the bits of one element from one address to another."""
        ctypes.memmove(target, source, ITEMSIZE[dtype])

    return copy_element


copy_element = by_dtype({d: _make_copy_element(d) for d in ITEMSIZE})
