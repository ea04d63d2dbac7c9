"""More primitives of kernels for GPUs: numbers in memory, and arithmetic that is rounded by itself; see ``ptx``."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false, reportReturnType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from pio.kernels._per_dtype import by_dtype
from pio.kernels.cuda.ptx import (
    F32,
    GLOBAL,
    I8,
    I32,
    I64,
    ITEMSIZE,
    SHARED,
    _named,  # pyright: ignore[reportPrivateUsage]
    _two_of,  # pyright: ignore[reportPrivateUsage]
    float32,
    float64,
    int64,
    primitive,
    void,
)

F64 = ir.DoubleType()


def asm(b: Any, text: str, constraints: str, result: Any, values: list[Any], effects: bool = False) -> Any:
    """Emit PTX."""
    kind = ir.FunctionType(result, [v.type for v in values])
    return b.call(ir.InlineAsm(kind, text, constraints, side_effect=effects), values)


def load(b: Any, address: Any, ty: Any, align: int, space: int = GLOBAL) -> Any:
    """Emit a load from an address of global or shared memory."""
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, ty.as_pointer(space))
    return b.load(at, align=align)


def store(b: Any, address: Any, value: Any, align: int, space: int = GLOBAL) -> None:
    """Emit a store to an address of global or shared memory."""
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, value.type.as_pointer(space))
    b.store(value, at, align=align)


def _constant(value: int) -> Any:
    return ir.Constant(I32, value)


# numbers in memory


def _load_quad(dtype: str) -> Callable[..., Any]:
    def emit(b: Any, address: Any) -> list[Any]:
        if dtype == "float32":
            return _load_four(b, address)
        raw = load(b, address, ir.VectorType(I32, 2), 8)
        return [number for i in range(2) for number in _two_of(b, b.extract_element(raw, _constant(i)), dtype)]

    return emit


load_quad = by_dtype(
    {
        dtype: _named(
            primitive((float32,) * 4, int64, emit=_load_quad(dtype)),
            f"load_quad_{dtype}",
            "Four numbers in a row, from an address that their bytes divide, in one load.",
            "address",
        )
        for dtype in ITEMSIZE
    }
)
quad_bytes = by_dtype({dtype: 4 * size for dtype, size in ITEMSIZE.items()})


@primitive(int64, int64, emit=lambda b, a: b.zext(load(b, a, I8, 1), I64))
def get_u8(address: int) -> int:
    """Read a byte."""


@primitive(void, int64, int64, emit=lambda b, a, v: store(b, a, b.trunc(v, I8), 1))
def put_u8(address: int, value: int) -> None:
    """Write the lowest byte of a number."""


@primitive(int64, int64, emit=lambda b, a: b.zext(load(b, a, I32, 4), I64))
def get_word(address: int) -> int:
    """Read 32 bits without a sign."""


@primitive(void, int64, int64, emit=lambda b, a, v: store(b, a, v, 8))
def put_i64(address: int, value: int) -> None:
    """Write an int64."""


@primitive(void, int64, float64, emit=lambda b, a, v: store(b, a, v, 8))
def put_f64(address: int, value: float) -> None:
    """Write a float64."""


@primitive(int64, int64, emit=lambda b, a: b.sext(load(b, a, I32, 4, SHARED), I64))
def get_shared_i32(address: int) -> int:
    """Read an int32 of shared memory."""


@primitive(void, int64, int64, emit=lambda b, a, v: store(b, a, b.trunc(v, I32), 4, SHARED))
def put_shared_i32(address: int, value: int) -> None:
    """Write the lower 32 bits to shared memory."""


@primitive(int64, int64, emit=lambda b, a: load(b, a, I64, 8, SHARED))
def get_shared_i64(address: int) -> int:
    """Read an int64 of shared memory."""


@primitive(void, int64, int64, emit=lambda b, a, v: store(b, a, v, 8, SHARED))
def put_shared_i64(address: int, value: int) -> None:
    """Write an int64 of shared memory."""


@primitive(float64, int64, emit=lambda b, a: load(b, a, F64, 8, SHARED))
def get_shared_f64(address: int) -> float:
    """Read a float64 of shared memory."""


@primitive(void, int64, float64, emit=lambda b, a, v: store(b, a, v, 8, SHARED))
def put_shared_f64(address: int, value: float) -> None:
    """Write a float64 of shared memory."""


def _load_four(b: Any, address: Any) -> list[Any]:
    raw = load(b, address, ir.VectorType(F32, 4), 16)
    return [b.extract_element(raw, _constant(i)) for i in range(4)]


@primitive((float32,) * 4, int64, emit=_load_four)
def load_four(address: int) -> tuple[float, float, float, float]:
    """Four float32 in a row, from an address that sixteen divides, in one load."""


def _vector(b: Any, values: tuple[Any, ...]) -> Any:
    made = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for i, value in enumerate(values):
        made = b.insert_element(made, value, _constant(i))
    return made


@primitive(void, int64, *[float32] * 4, emit=lambda b, a, *v: store(b, a, _vector(b, v), 16))
def store_four(address: int, v0: float, v1: float, v2: float, v3: float) -> None:
    """Write four float32 in a row, to an address that sixteen divides, in one store."""


def _load_shared_four(b: Any, address: Any) -> list[Any]:
    raw = load(b, address, ir.VectorType(F32, 4), 16, SHARED)
    return [b.extract_element(raw, _constant(i)) for i in range(4)]


@primitive((float32,) * 4, int64, emit=_load_shared_four)
def load_shared_four(address: int) -> tuple[float, float, float, float]:
    """Four float32 of shared memory in a row, from an address that sixteen divides, in one load."""


def _move_sixteen(b: Any, to: Any, at: Any) -> None:
    store(b, to, load(b, at, ir.VectorType(I32, 4), 16), 16)


@primitive(void, int64, int64, emit=_move_sixteen)
def move_sixteen(to: int, at: int) -> None:
    """Copy sixteen bytes between addresses that sixteen divides."""


# arithmetic


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


@primitive(float32, float32, float32, emit=_binary("min.f32", "f"))
def minimum(x: float, y: float) -> float:
    """The smaller of two; of a number and a NaN the number."""


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
