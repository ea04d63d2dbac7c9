"""Memory of the GPU, by address: numbers of every type, and several at once."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir

from pio.kernels._per_dtype import by_dtype
from pio.kernels.cuda.ptx.emit import (
    F16,
    F32,
    F64,
    GLOBAL,
    I8,
    I16,
    I32,
    I64,
    ITEMSIZE,
    asm,
    float32,
    float64,
    i32,
    int32,
    int64,
    load_at,
    named,
    primitive,
    read_words,
    store_at,
    two_of,
    vector,
    void,
)


def _float(b: Any, raw: Any, dtype: str) -> Any:
    """The float32 of stored bits: an integer of their width, or a float32."""
    if dtype == "float32":
        return raw if raw.type == F32 else b.bitcast(raw, F32)
    if dtype == "float16":
        return b.fpext(b.bitcast(raw, F16), F32)
    return b.bitcast(b.shl(b.zext(raw, I32), ir.Constant(I32, 16)), F32)


_STORED: Final = {"float32": I32, "float16": I16, "bfloat16": I16}


def _load_scalar(dtype: str, space: int) -> Callable[..., Any]:
    ty = _STORED[dtype]
    return lambda b, address: _float(b, load_at(b, address, ty, ty.width // 8, space), dtype)


def _store_scalar(dtype: str, space: int) -> Callable[..., Any]:
    def emit(b: Any, address: Any, value: Any) -> None:
        if dtype == "float32":
            stored = value
        elif dtype == "float16":
            stored = b.bitcast(b.fptrunc(value, F16), I16)
        else:
            stored = asm(b, "cvt.rn.bf16.f32 $0, $1;", "=h,f", I16, [value])
        store_at(b, address, stored, ITEMSIZE[dtype], space)

    return emit


def scalar_loads(space: int, prefix: str) -> Any:
    """Make what reads a number of each type from a space of memory."""
    return by_dtype(
        {
            dtype: primitive(float32, int64, emit=_load_scalar(dtype, space))(
                named(f"{prefix}_{dtype}", "One number.", "address")
            )
            for dtype in ITEMSIZE
        }
    )


def scalar_stores(space: int, prefix: str) -> Any:
    """Make what writes a number of each type to a space of memory."""
    return by_dtype(
        {
            dtype: primitive(void, int64, float32, emit=_store_scalar(dtype, space))(
                named(f"{prefix}_{dtype}", "Write one number, rounded to nearest, ties to even.", "address", "value")
            )
            for dtype in ITEMSIZE
        }
    )


load, store = scalar_loads(GLOBAL, "load"), scalar_stores(GLOBAL, "store")
itemsize = by_dtype(ITEMSIZE)
get_f32, put_f32 = load["float32"], store["float32"]


@primitive(int64, int64, emit=lambda b, a: b.sext(load_at(b, a, I32, 4), I64))
def get_i32(address: int) -> int:
    """Read an int32."""


@primitive(int64, int64, emit=lambda b, a: load_at(b, a, I64, 8))
def get_i64(address: int) -> int:
    """Read an int64."""


@primitive(float64, int64, emit=lambda b, a: load_at(b, a, F64, 8))
def get_f64(address: int) -> float:
    """Read a float64."""


@primitive(int64, int64, emit=lambda b, a: b.zext(load_at(b, a, I8, 1), I64))
def get_u8(address: int) -> int:
    """Read a byte."""


@primitive(int64, int64, emit=lambda b, a: b.zext(load_at(b, a, I16, 2), I64))
def get_u16(address: int) -> int:
    """Read sixteen bits."""


@primitive(int64, int64, emit=lambda b, a: b.zext(load_at(b, a, I32, 4), I64))
def get_word(address: int) -> int:
    """Read 32 bits without a sign."""


def _get_others(b: Any, address: Any) -> Any:
    return asm(b, "ld.relaxed.gpu.global.f32 $0, [$1];", "=f,l", F32, [address], effects=True)


@primitive(float32, int64, emit=_get_others)
def get_others_f32(address: int) -> float:
    """Read a float32 that another block may have written."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, b.trunc(v, I32), 4))
def put_i32(address: int, value: int) -> None:
    """Write the lower 32 bits."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, v, 8))
def put_i64(address: int, value: int) -> None:
    """Write an int64."""


@primitive(void, int64, float64, emit=lambda b, a, v: store_at(b, a, v, 8))
def put_f64(address: int, value: float) -> None:
    """Write a float64."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, b.trunc(v, I8), 1))
def put_u8(address: int, value: int) -> None:
    """Write the lower eight bits."""


def _load_quad(dtype: str) -> Callable[..., Any]:
    def emit(b: Any, address: Any) -> list[Any]:
        if dtype == "float32":
            return _load_four(b, address)
        raw = load_at(b, address, ir.VectorType(I32, 2), 8)
        return [number for i in range(2) for number in two_of(b, b.extract_element(raw, i32(i)), dtype)]

    return emit


load_quad = by_dtype(
    {
        dtype: primitive((float32,) * 4, int64, emit=_load_quad(dtype))(
            named(
                f"load_quad_{dtype}",
                "Four numbers in a row, from an address that their bytes divide, in one load.",
                "address",
            )
        )
        for dtype in ITEMSIZE
    }
)
quad_bytes = by_dtype({dtype: 4 * size for dtype, size in ITEMSIZE.items()})


def _load_four(b: Any, address: Any) -> list[Any]:
    raw = load_at(b, address, ir.VectorType(F32, 4), 16)
    return [b.extract_element(raw, i32(i)) for i in range(4)]


@primitive((float32,) * 4, int64, emit=_load_four)
def load_four(address: int) -> tuple[float, float, float, float]:
    """Four float32 in a row, from an address that sixteen divides, in one load."""


@primitive(void, int64, *[float32] * 4, emit=lambda b, a, *v: store_at(b, a, vector(b, v), 16))
def store_four(address: int, v0: float, v1: float, v2: float, v3: float) -> None:
    """Write four float32 in a row, to an address that sixteen divides, in one store."""


@primitive((int32,) * 4, int64, emit=lambda b, a: read_words(b, a, 4, GLOBAL))
def load_words(address: int) -> tuple[int, int, int, int]:
    """Four words of 32 bits, from an address that sixteen divides, in one load."""


@primitive(void, int64, *[int32] * 4, emit=lambda b, a, *v: store_at(b, a, vector(b, v), 16))
def store_words(address: int, first: int, second: int, third: int, fourth: int) -> None:
    """Write four words of 32 bits to an address that sixteen divides, in one store."""


def _move_sixteen(b: Any, to: Any, at: Any) -> None:
    store_at(b, to, load_at(b, at, ir.VectorType(I32, 4), 16), 16)


@primitive(void, int64, int64, emit=_move_sixteen)
def move_sixteen(to: int, at: int) -> None:
    """Copy sixteen bytes between addresses that sixteen divides."""


@primitive(void, int64, emit=lambda b, a: asm(b, "prefetch.global.L2 [$0];", "l", ir.VoidType(), [a], effects=True))
def prefetch(address: int) -> None:
    """Ask for the line of memory of an address, which must be one of memory that is there."""
