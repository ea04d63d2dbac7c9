"""The primitives of kernels for GPUs: memory by address, sixteen bytes at once, warps, and tensor cores.

This is the only module that knows how numba-cuda is told of instructions. Addresses are int64; those of shared memory
are int64 too and go to the primitives that say so.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from llvmlite import ir
from numba import types
from numba.core.typing import signature
from numba.cuda import syncthreads as _syncthreads
from numba.cuda.extending import intrinsic

from pio.kernels._per_dtype import by_dtype
from pio.kernels.cuda import _compiler as _compiler  # mends NumPy first

WARP: Final = 32
ALL: Final = 0xFFFFFFFF  # lanes of a warp

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
GLOBAL, SHARED = 1, 3

syncthreads = cast("Callable[[], None]", _syncthreads)  # waits until all threads of the block are there
int64, int32, float32, float64, void = types.int64, types.int32, types.float32, types.float64, types.void


def primitive(result: Any, *parameters: Any, emit: Callable[..., Any]) -> Callable[[Any], Any]:
    """Make a function of kernels of a function that emits LLVM code; what it decorates names and describes it.

    Args:
        result: Type of the result; a tuple of several for several.
        parameters: Types of the parameters.
        emit: Takes a builder and the values, returns a value, several, or None.
    """
    returned = types.Tuple(result) if isinstance(result, tuple) else result

    def decorate(fn: Any) -> Any:
        names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
        assert len(names) == len(parameters), fn.__name__

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            found = emit(builder, *args)
            if isinstance(result, tuple):
                return context.make_tuple(builder, returned, found)
            return context.get_dummy_value() if found is None else found

        scope: dict[str, Any] = {"sig": signature(returned, *parameters), "generate": generate}
        exec(f"def {fn.__name__}(context{''.join(', ' + n for n in names)}): return sig, generate", scope)
        made = scope[fn.__name__]
        made.__doc__, made.__module__ = fn.__doc__, fn.__module__
        return intrinsic(made)

    return decorate


def _load(b: Any, address: Any, ty: Any, align: int, space: int = GLOBAL) -> Any:
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, ty.as_pointer(space))
    return b.load(at, align=align)


def _store(b: Any, address: Any, value: Any, align: int, space: int = GLOBAL) -> None:
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, value.type.as_pointer(space))
    b.store(value, at, align=align)


def _asm(b: Any, text: str, constraints: str, result: Any, values: list[Any], effects: bool = False) -> Any:
    kind = ir.FunctionType(result, [v.type for v in values])
    return b.call(ir.InlineAsm(kind, text, constraints, side_effect=effects), values)


def _special(name: str) -> Callable[..., Any]:
    return lambda b: b.zext(_asm(b, f"mov.u32 $0, %{name};", "=r", I32, []), I64)


@primitive(int64, emit=_special("tid.x"))
def thread_index() -> int:
    """Which thread of its block this is."""


@primitive(int64, emit=_special("ntid.x"))
def block_size() -> int:
    """Threads of a block."""


@primitive(int64, emit=_special("ctaid.x"))
def block_index() -> int:
    """Which block of the grid this is."""


@primitive(int64, emit=_special("nctaid.x"))
def grid_size() -> int:
    """Blocks of the grid."""


def _float(b: Any, raw: Any, dtype: str) -> Any:
    """The float32 of stored bits: an integer of their width, or a float32."""
    if dtype == "float32":
        return raw if raw.type == F32 else b.bitcast(raw, F32)
    if dtype == "float16":
        return b.fpext(b.bitcast(raw, F16), F32)
    return b.bitcast(b.shl(b.zext(raw, I32), ir.Constant(I32, 16)), F32)


_STORED: Final = {"float32": I32, "float16": I16, "bfloat16": I16}
ITEMSIZE: Final = {"float32": 4, "float16": 2, "bfloat16": 2}


def _load_scalar(dtype: str, space: int) -> Callable[..., Any]:
    ty = _STORED[dtype]
    return lambda b, address: _float(b, _load(b, address, ty, ty.width // 8, space), dtype)


def _store_scalar(dtype: str, space: int) -> Callable[..., Any]:
    def emit(b: Any, address: Any, value: Any) -> None:
        if dtype == "float32":
            stored = value
        elif dtype == "float16":
            stored = b.bitcast(b.fptrunc(value, F16), I16)
        else:
            stored = _asm(b, "cvt.rn.bf16.f32 $0, $1;", "=h,f", I16, [value])
        _store(b, address, stored, ITEMSIZE[dtype], space)

    return emit


def _named(made: Callable[[Any], Any], name: str, doc: str, *names: str) -> Any:
    """Declare a primitive whose name, one of several like it, is put together."""
    scope: dict[str, Any] = {}
    exec(f"def {name}({', '.join(names)}): {doc!r}", scope)
    scope[name].__module__ = __name__
    return made(scope[name])


def _loads(space: int, prefix: str) -> Any:
    return by_dtype(
        {
            dtype: _named(
                primitive(float32, int64, emit=_load_scalar(dtype, space)),
                f"{prefix}_{dtype}",
                "One number.",
                "address",
            )
            for dtype in ITEMSIZE
        }
    )


def _stores(space: int, prefix: str) -> Any:
    return by_dtype(
        {
            dtype: _named(
                primitive(void, int64, float32, emit=_store_scalar(dtype, space)),
                f"{prefix}_{dtype}",
                "Write one number, rounded to nearest, ties to even.",
                "address",
                "value",
            )
            for dtype in ITEMSIZE
        }
    )


load, store = _loads(GLOBAL, "load"), _stores(GLOBAL, "store")
load_shared, store_shared = _loads(SHARED, "load_shared"), _stores(SHARED, "store_shared")
itemsize = by_dtype(ITEMSIZE)
get_f32, put_f32 = load["float32"], store["float32"]
get_shared_f32, put_shared_f32 = load_shared["float32"], store_shared["float32"]


def _four(b: Any, address: Any, space: int) -> list[Any]:
    raw = _load(b, address, ir.VectorType(I32, 4), 16, space)
    return [b.extract_element(raw, ir.Constant(I32, i)) for i in range(4)]


def _two_of(b: Any, word: Any, dtype: str) -> list[Any]:
    """The two numbers of sixteen bits in a word, as float32."""
    if dtype == "bfloat16":
        low = b.shl(word, ir.Constant(I32, 16))
        return [b.bitcast(low, F32), b.bitcast(b.and_(word, ir.Constant(I32, -1 << 16)), F32)]
    halves = b.bitcast(word, ir.VectorType(F16, 2))
    return [b.fpext(b.extract_element(halves, ir.Constant(I32, i)), F32) for i in range(2)]


def _load_eight(dtype: str) -> Callable[..., Any]:
    def emit(b: Any, address: Any) -> list[Any]:
        words = _four(b, address, GLOBAL)
        if dtype == "float32":
            words += _four(b, b.add(address, ir.Constant(I64, 16)), GLOBAL)
            return [b.bitcast(word, F32) for word in words]
        return [number for word in words for number in _two_of(b, word, dtype)]

    return emit


load_eight = by_dtype(
    {
        dtype: _named(
            primitive((float32,) * 8, int64, emit=_load_eight(dtype)),
            f"load_eight_{dtype}",
            "Eight numbers in a row, from an address that sixteen divides, in loads of sixteen bytes.",
            "address",
        )
        for dtype in ITEMSIZE
    }
)


@primitive((int32,) * 4, int64, emit=lambda b, a: _four(b, a, GLOBAL))
def load_words(address: int) -> tuple[int, int, int, int]:
    """Four words of 32 bits, from an address that sixteen divides, in one load."""


@primitive(int64, int64, emit=lambda b, a: b.sext(_load(b, a, I32, 4), I64))
def get_i32(address: int) -> int:
    """Read an int32."""


@primitive(int64, int64, emit=lambda b, a: _load(b, a, I64, 8))
def get_i64(address: int) -> int:
    """Read an int64."""


@primitive(float64, int64, emit=lambda b, a: _load(b, a, ir.DoubleType(), 8))
def get_f64(address: int) -> float:
    """Read a float64."""


@primitive(void, int64, int64, emit=lambda b, a, v: _store(b, a, b.trunc(v, I32), 4))
def put_i32(address: int, value: int) -> None:
    """Write the lower 32 bits."""


def _shared_memory(b: Any) -> Any:
    module = b.module
    name = "pio_shared"
    found = module.globals.get(name)
    if found is None:
        found = ir.GlobalVariable(module, ir.ArrayType(I8, 0), name, addrspace=SHARED)
        found.linkage, found.align = "external", 16
    return b.zext(b.ptrtoint(found, I32), I64)


@primitive(int64, emit=_shared_memory)
def shared_memory() -> int:
    """The address of the block's shared memory, as large as the kernel has declared it; sixteen divides it."""


def _shuffle_xor(b: Any, value: Any, mask: Any) -> Any:
    text = "shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;"
    return _asm(b, text, "=f,f,r", F32, [value, b.trunc(mask, I32)], effects=True)


@primitive(float32, float32, int64, emit=_shuffle_xor)
def shuffle_xor(value: float, mask: int) -> float:
    """The number of the lane whose index differs in the bits of ``mask``; all lanes of the warp must take part."""


def _fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    return _asm(b, "fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", F32, [x, y, z])


@primitive(float32, float32, float32, float32, emit=_fma)
def fma(x: float, y: float, z: float) -> float:
    """``x * y + z``, rounded once."""


@primitive(float32, float32, emit=lambda b, x: _asm(b, "rcp.rn.f32 $0, $1;", "=f,f", F32, [x]))
def reciprocal(x: float) -> float:
    """``1 / x``, rounded to nearest."""


@primitive(float32, float32, emit=lambda b, x: _asm(b, "sqrt.rn.f32 $0, $1;", "=f,f", F32, [x]))
def square_root(x: float) -> float:
    """The square root, rounded to nearest."""


@primitive(float32, float32, emit=lambda b, x: _asm(b, "ex2.approx.f32 $0, $1;", "=f,f", F32, [x]))
def exp2(x: float) -> float:
    """Two to a power, within two units in the last place."""


@primitive(float32, float64, emit=lambda b, x: b.fptrunc(x, F32))
def single(x: float) -> float:
    """A number as float32."""


def _mma_bf16(b: Any, *v: Any) -> list[Any]:
    text = (
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    )
    result = _asm(b, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", ir.LiteralStructType([F32] * 4), [*v[4:], *v[:4]])
    return [b.extract_value(result, i) for i in range(4)]


@primitive((float32,) * 4, *[float32] * 4, *[int32] * 6, emit=_mma_bf16)
def mma_bf16(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):  # type: ignore[no-untyped-def]
    """Add the product of 16 x 16 and 16 x 8 bfloat16 to 16 x 8 float32, over a warp (m16n8k16)."""


def _mma_s8(b: Any, *v: Any) -> list[Any]:
    text = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    result = _asm(b, text, "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r", ir.LiteralStructType([I32] * 4), [*v[4:], *v[:4]])
    return [b.extract_value(result, i) for i in range(4)]


@primitive((int32,) * 4, *[int32] * 10, emit=_mma_s8)
def mma_s8(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):  # type: ignore[no-untyped-def]
    """Add the product of 16 x 32 and 32 x 8 int8 to 16 x 8 int32, over a warp (m16n8k32)."""


def _pack_bf16(b: Any, low: Any, high: Any) -> Any:
    return _asm(b, "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f", I32, [high, low])


@primitive(int32, float32, float32, emit=_pack_bf16)
def pack_bf16(low: float, high: float) -> int:
    """Two numbers rounded to bfloat16, in one word."""
