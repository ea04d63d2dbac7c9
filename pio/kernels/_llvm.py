"""Building blocks of LLVM code that the vector primitives and the tiles share."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels._processor import unlisted_features
from pio.kernels.sizes import ITEMSIZE as ITEMSIZE
from pio.kernels.sizes import LANES

LINE: Final = 64  # bytes that memory is read in
I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
F32X16, I32X16 = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
F16X16, I16X16 = ir.VectorType(F16, LANES), ir.VectorType(I16, LANES)


def i64_const(value: int) -> Any:
    return ir.Constant(I64, value)


def function(b: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(result, arguments), name)


def add_attributes(context: Any, function: Any) -> None:
    """Have a function compiled for what the processor can do besides what LLVM has found: the list is all of it.

    Its stack is aligned to whole vectors: one that crosses a line of memory is read back after a stall of some thirty
    cycles.
    """
    set.add(function.attributes, '"stackrealign"')  # llvmlite refuses names that it does not know
    added = unlisted_features()
    if added:
        listed = context.codegen().magic_tuple()[2]
        found = ",".join([*([listed] if listed else []), *(f"+{feature}" for feature in added)])
        set.add(function.attributes, f'"target-features"="{found}"')


def pointer(b: Any, address: Any, ty: Any) -> Any:
    return b.inttoptr(address, ir.PointerType(ty))


def load(b: Any, address: Any, ty: Any, align: int) -> Any:
    value = b.load(pointer(b, address, ty), typ=ty)
    value.align = align
    return value


def store(b: Any, address: Any, value: Any, align: int) -> None:
    b.store(value, pointer(b, address, value.type)).align = align


def at(b: Any, base: Any, *terms: tuple[Any, Any]) -> Any:
    """Base address plus products of offsets; integers and values may be mixed."""
    for x, y in terms:
        x, y = (i64_const(v) if isinstance(v, int) else v for v in (x, y))
        base = b.add(base, b.mul(x, y))
    return base


def own(b: Any, address: Any) -> Any:
    """The same address, of which the compiler does not see how it came about.

    Rows of a tile lie a stride apart. Of addresses that it knows to do so LLVM keeps one in a register and adds up the
    others, each from the one before: a cycle for each product, as long as a processor takes for two of them.
    """
    kept = ir.InlineAsm(ir.FunctionType(I64, [I64]), "", "=r,0")
    return b.call(kept, [address])


def prefetch(b: Any, address: Any, level: int = 2) -> None:
    """Ask for a line of memory to be in the first- or second-level cache soon; any address will do."""
    read, locality, data = (ir.Constant(I32, v) for v in (0, 4 - level, 1))
    ask = function(b, "llvm.prefetch.p0", ir.VoidType(), [ir.PointerType(I8), I32, I32, I32])
    b.call(ask, [pointer(b, address, I8), read, locality, data])


def splat(b: Any, scalar: Any) -> Any:
    ty = ir.VectorType(scalar.type, LANES)
    undef = ir.Constant(ty, ir.Undefined)
    first = b.insert_element(undef, scalar, ir.Constant(I32, 0))
    return b.shuffle_vector(first, undef, ir.Constant(I32X16, [0] * LANES))


def constant(value: float) -> Any:
    return ir.Constant(F32X16, [value] * LANES)


def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    return b.call(function(b, "llvm.fmuladd.v16f32", F32X16, [F32X16] * 3), [x, y, z])


def fma_f32(b: Any, x: Any, y: Any, z: Any) -> Any:
    return b.call(function(b, "llvm.fmuladd.f32", F32, [F32] * 3), [x, y, z])


def widen(b: Any, raw: Any, dtype: str) -> Any:
    """Sixteen elements as stored -> float32 lanes."""
    if dtype == "float16":
        return b.fpext(raw, F32X16)
    if dtype == "bfloat16":
        return b.bitcast(b.shl(b.zext(raw, I32X16), ir.Constant(I32X16, [16] * LANES)), F32X16)
    return raw


def narrow(b: Any, value: Any, dtype: str) -> Any:
    """Float32 lanes -> sixteen elements as stored, rounded to nearest even; NaN stays NaN."""
    if dtype == "float16":
        return b.fptrunc(value, F16X16)
    if dtype == "bfloat16":
        bits = b.bitcast(value, I32X16)
        odd = b.and_(b.lshr(bits, ir.Constant(I32X16, [16] * LANES)), ir.Constant(I32X16, [1] * LANES))
        rounded = b.add(b.add(bits, ir.Constant(I32X16, [0x7FFF] * LANES)), odd)
        quiet = b.or_(bits, ir.Constant(I32X16, [0x400000] * LANES))
        kept = b.select(b.fcmp_unordered("uno", value, value), quiet, rounded)
        return b.trunc(b.lshr(kept, ir.Constant(I32X16, [16] * LANES)), I16X16)
    return value


def stored(dtype: str) -> Any:
    return {"float32": F32X16, "float16": F16X16, "bfloat16": I16X16}[dtype]


def load_as(b: Any, address: Any, dtype: str) -> Any:
    return widen(b, load(b, address, stored(dtype), ITEMSIZE[dtype]), dtype)


def copy(b: Any, target: Any, source: Any, nbytes: Any) -> None:
    pointer = ir.PointerType(I8)
    memcpy = function(b, "llvm.memcpy.p0.p0.i64", ir.VoidType(), [pointer, pointer, I64, ir.IntType(1)])
    b.call(memcpy, [target, source, nbytes, ir.Constant(ir.IntType(1), 0)])


def load_bytes(b: Any, address: Any, nbytes: Any, ty: Any) -> Any:
    """A vector of which only the first bytes are in memory, zeros behind: nothing past the end is read."""
    buffer = cgutils.alloca_once(b, ty)
    b.store(ir.Constant(ty, [0] * ty.count), buffer)
    copy(b, b.bitcast(buffer, ir.PointerType(I8)), pointer(b, address, I8), nbytes)
    return b.load(buffer, typ=ty)


def load_part_as(b: Any, address: Any, n: Any, dtype: str) -> Any:
    """The first n lanes from memory, zeros behind."""
    return widen(b, load_bytes(b, address, b.mul(n, i64_const(ITEMSIZE[dtype])), stored(dtype)), dtype)


def store_part_as(b: Any, address: Any, value: Any, n: Any, dtype: str) -> None:
    stored = narrow(b, value, dtype)
    buffer = cgutils.alloca_once(b, stored.type)
    b.store(stored, buffer)
    raw = ir.PointerType(I8)
    copy(b, pointer(b, address, I8), b.bitcast(buffer, raw), b.mul(n, i64_const(ITEMSIZE[dtype])))


def fold(b: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Sixteen lanes -> one by halving: the same tree on every target."""
    width = LANES
    while width > 1:
        half = width // 2
        undef = ir.Constant(value.type, ir.Undefined)
        low, high = (ir.Constant(ir.VectorType(I32, half), list(range(s, s + half))) for s in (0, half))
        value = combine(b.shuffle_vector(value, undef, low), b.shuffle_vector(value, undef, high))
        width = half
    return b.extract_element(value, ir.Constant(I32, 0))


def maximum(b: Any, x: Any, y: Any) -> Any:
    """The larger of two; a NaN in x stays, one in y does not."""
    return b.select(b.fcmp_ordered(">", y, x), y, x)  # in this order it is one instruction of x86


def fold_all(b: Any, values: Sequence[Any], combine: Callable[[Any, Any], Any]) -> list[Any]:
    """What ``fold`` gives for each vector, to the bit, sixteen of them a vector: two share each step."""
    sums: list[Any] = []
    for first in range(0, len(values), LANES):
        group = [*values[first : first + LANES]]
        group += [ir.Constant(F32X16, ir.Undefined)] * (LANES - len(group))
        width = LANES
        while width > 1:
            half = width // 2
            lanes = [lane for lane in range(2 * LANES) if lane % width < half]
            low, high = (ir.Constant(I32X16, [lane + s for lane in lanes]) for s in (0, half))
            pairs = zip(group[::2], group[1::2], strict=True)
            group = [combine(b.shuffle_vector(x, y, low), b.shuffle_vector(x, y, high)) for x, y in pairs]
            width = half
        sums += group
    return sums
