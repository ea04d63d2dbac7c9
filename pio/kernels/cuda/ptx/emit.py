"""How primitives are declared and what they emit: types, instructions, loads and stores of LLVM.

This is the only module that knows how numba-cuda is told of instructions. ``primitive`` makes a function of kernels of
one that emits code; what such a function shares with others stands here too.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.cuda.extending import intrinsic

from pio.kernels.cuda import _compiler as _compiler  # mends NumPy first

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
GLOBAL, SHARED = 1, 3  # spaces of memory
ITEMSIZE: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
Words = list[Any]  # values that a function emits

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


def named(name: str, doc: str, *parameters: str) -> Callable[..., Any]:
    """Return a function that names and describes a primitive."""
    scope: dict[str, Any] = {}
    exec(f"def {name}({', '.join(parameters)}): {doc!r}", scope)
    scope[name].__module__ = __name__
    return scope[name]


def asm(b: Any, text: str, constraints: str, result: Any, values: Sequence[Any], effects: bool = False) -> Any:
    """Emit an instruction; one that lanes execute together is not moved to where only some of them come.

    Args:
        b: The builder.
        text: PTX.
        constraints: Of its operands, as LLVM has them.
        result: Type of what it gives.
        values: What it takes.
        effects: Whether it does more than that.
    """
    kind = ir.FunctionType(result, [v.type for v in values])
    found = b.call(ir.InlineAsm(kind, text, constraints, side_effect=effects), list(values))
    if ".sync" in text or ".aligned" in text:  # as PTX says of all of these
        found.attributes.add("convergent")
    return found


def load_at(b: Any, address: Any, ty: Any, align: int, space: int = GLOBAL) -> Any:
    """Emit a load from global or shared memory."""
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, ty.as_pointer(space))
    return b.load(at, align=align)


def store_at(b: Any, address: Any, value: Any, align: int, space: int = GLOBAL) -> None:
    """Emit a store to global or shared memory."""
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, value.type.as_pointer(space))
    b.store(value, at, align=align)


def i64(value: int) -> Any:
    """Return a constant."""
    return ir.Constant(I64, value)


def i32(value: int) -> Any:
    """Return a constant."""
    return ir.Constant(I32, value)


def read_words(b: Any, address: Any, count: int, space: int) -> Words:
    """Emit a load of two or four words."""
    raw = load_at(b, address, ir.VectorType(I32, count), 4 * count, space)
    return [b.extract_element(raw, i32(i)) for i in range(count)]


def read_once(b: Any, address: Any) -> Words:
    """Emit a load of four words that nobody writes meanwhile and that are read once: they leave L1 alone."""
    text = "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {$0,$1,$2,$3}, [$4];"
    found = asm(b, text, "=r,=r,=r,=r,l", ir.LiteralStructType([I32] * 4), [address])
    return [b.extract_value(found, i) for i in range(4)]


def vector(b: Any, values: Sequence[Any]) -> Any:
    """Emit a vector of values of one type."""
    made = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for i, value in enumerate(values):
        made = b.insert_element(made, value, i32(i))
    return made


def put_words(b: Any, address: Any, *words: Any) -> None:
    """Store four words of shared memory at once."""
    store_at(b, address, vector(b, words), 16, SHARED)


def two_of(b: Any, word: Any, dtype: str) -> list[Any]:
    """The two numbers of sixteen bits in a word, as float32."""
    if dtype == "bfloat16":
        low = b.shl(word, ir.Constant(I32, 16))
        return [b.bitcast(low, F32), b.bitcast(b.and_(word, ir.Constant(I32, -1 << 16)), F32)]
    halves = b.bitcast(word, ir.VectorType(F16, 2))
    return [b.fpext(b.extract_element(halves, ir.Constant(I32, i)), F32) for i in range(2)]


def numbers(b: Any, values: Any) -> Words:
    """Return what a tuple holds."""
    return cgutils.unpack_tuple(b, values)


def floats(count: int) -> Any:
    """Return the type of so many sums."""
    return types.UniTuple(float32, count)


def fused(b: Any, x: Any, y: Any, z: Any) -> Any:
    """Emit ``x * y + z``, rounded once."""
    return asm(b, "fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", F32, [x, y, z])
