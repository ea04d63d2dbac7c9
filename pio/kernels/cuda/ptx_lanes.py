"""More primitives of kernels for GPUs, see ``ptx``: copies to shared memory, whole numbers, and lanes of a warp.

Also what emits them, for tiles.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportReturnType=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda.ptx import F32, GLOBAL, I8, I16, I32, I64, SHARED, float32, int32, int64, primitive, void

Words = list[Any]  # values that a function emits


def i64(value: int) -> Any:
    """Return a constant."""
    return ir.Constant(I64, value)


def i32(value: int) -> Any:
    """Return a constant."""
    return ir.Constant(I32, value)


def asm(
    b: Any,
    text: str,
    constraints: str,
    result: Any,
    values: Sequence[Any],
    effects: bool = False,
    together: bool = False,
) -> Any:
    """Emit an instruction.

    Args:
        b: The builder.
        text: PTX.
        constraints: Of its operands, as LLVM has them.
        result: Type of what it gives.
        values: What it takes.
        effects: Whether it does more than that.
        together: Whether lanes execute it together: the compiler must not move it to where only some of them come.
    """
    kind = ir.FunctionType(result, [v.type for v in values])
    found = b.call(ir.InlineAsm(kind, text, constraints, side_effect=effects), list(values))
    if together:
        found.attributes.add("convergent")
    return found


def load(b: Any, address: Any, ty: Any, align: int, space: int = GLOBAL) -> Any:
    """Emit a load from global or shared memory."""
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, ty.as_pointer(space))
    return b.load(at, align=align)


def store(b: Any, address: Any, value: Any, align: int, space: int = GLOBAL) -> None:
    """Emit a store to global or shared memory."""
    at = b.inttoptr(b.trunc(address, I32) if space == SHARED else address, value.type.as_pointer(space))
    b.store(value, at, align=align)


def read_words(b: Any, address: Any, count: int, space: int) -> Words:
    """Emit a load of two or four words."""
    raw = load(b, address, ir.VectorType(I32, count), 4 * count, space)
    return [b.extract_element(raw, i32(i)) for i in range(count)]


def read_once(b: Any, address: Any) -> Words:
    """Emit a load of four words that nobody writes meanwhile and that are read once: they leave L1 alone."""
    text = "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {$0,$1,$2,$3}, [$4];"
    found = asm(b, text, "=r,=r,=r,=r,l", ir.LiteralStructType([I32] * 4), [address])
    return [b.extract_value(found, i) for i in range(4)]


def numbers(b: Any, values: Any) -> Words:
    """Return what a tuple holds."""
    return cgutils.unpack_tuple(b, values)


def floats(count: int) -> Any:
    """Return the type of so many sums."""
    return types.UniTuple(float32, count)


def named(name: str, doc: str, *parameters: str) -> Callable[..., Any]:
    """Return a function that names and describes a primitive."""
    scope: dict[str, Any] = {}
    exec(f"def {name}({', '.join(parameters)}): {doc!r}", scope)
    scope[name].__module__ = __name__
    return scope[name]


@primitive(void, int64, int64, emit=lambda b, a, v: store(b, a, b.trunc(v, I32), 4, SHARED))
def put_shared_i32(address: int, value: int) -> None:
    """Write the lower 32 bits to shared memory."""


@primitive(int64, int64, emit=lambda b, a: b.sext(load(b, a, I32, 4, SHARED), I64))
def get_shared_i32(address: int) -> int:
    """Read an int32 of shared memory."""


@primitive(int64, int64, emit=lambda b, a: b.zext(load(b, a, I16, 2), I64))
def get_u16(address: int) -> int:
    """Read sixteen bits."""


@primitive(void, int64, int64, emit=lambda b, a, v: store(b, a, b.trunc(v, I16), 2, SHARED))
def put_shared_u16(address: int, value: int) -> None:
    """Write the lower sixteen bits to shared memory."""


@primitive(int64, int64, emit=lambda b, a: b.zext(load(b, a, I8, 1), I64))
def get_u8(address: int) -> int:
    """Read a byte."""


@primitive(void, int64, int64, emit=lambda b, a, v: store(b, a, b.trunc(v, I8), 1))
def put_u8(address: int, value: int) -> None:
    """Write the lower eight bits."""


def _copy_async(b: Any, to: Any, source: Any, nbytes: Any) -> None:
    kind = ir.VoidType()
    asm(
        b,
        "cp.async.cg.shared.global [$0], [$1], 16, $2;",
        "r,l,r,~{memory}",
        kind,
        [b.trunc(to, I32), source, b.trunc(nbytes, I32)],
        effects=True,
    )


@primitive(void, int64, int64, int64, emit=_copy_async)
def copy_async(to: int, source: int, nbytes: int) -> None:
    """Begin to copy ``nbytes`` bytes, and zeros up to sixteen, to shared memory; sixteen divides both addresses."""


def _nothing(b: Any, text: str) -> None:
    asm(b, text, "~{memory}", ir.VoidType(), [], effects=True)


@primitive(void, emit=lambda b: _nothing(b, "cp.async.commit_group;"))
def end_copies() -> None:
    """Make a group of the copies that this thread began since the last one."""


def _wait(name: str) -> Any:
    doc = "Wait for all groups of this thread's copies but so many of the last."
    made = primitive(void, emit=lambda b: _nothing(b, f"cp.async.wait_group {name};"))
    return made(named(f"wait_copies_{name}", doc))


wait_copies = PerDtype(_wait)  # by how many groups may be under way still


def _shuffle_int(b: Any, value: Any, mask: Any) -> Any:
    text = "shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;"
    return b.sext(
        asm(b, text, "=r,r,r", I32, [b.trunc(value, I32), b.trunc(mask, I32)], effects=True, together=True), I64
    )


@primitive(int64, int64, int64, emit=_shuffle_int)
def shuffle_xor_i32(value: int, mask: int) -> int:
    """As ``shuffle_xor``, of 32 bits with a sign."""


@primitive(int64, float32, emit=lambda b, x: b.sext(b.bitcast(x, I32), I64))
def float_bits(x: float) -> int:
    """The bits of a float32, with a sign."""


@primitive(float32, int64, emit=lambda b, x: b.bitcast(b.trunc(x, I32), F32))
def bits_float(x: int) -> float:
    """The float32 of bits."""


@primitive(float32, int64, emit=lambda b, x: b.sitofp(x, F32))
def to_single(x: int) -> float:
    """A whole number as float32, rounded to nearest."""


@primitive(int64, float32, emit=lambda b, x: b.sext(asm(b, "cvt.rni.s32.f32 $0, $1;", "=r,f", I32, [x]), I64))
def nearest(x: float) -> int:
    """The nearest whole number, halves to even."""


def _any_thread(b: Any, value: Any) -> Any:
    text = "{ .reg .pred p, q; setp.ne.s32 p, $1, 0; barrier.red.or.pred.aligned q, 0, p; selp.s32 $0, 1, 0, q; }"
    return b.zext(asm(b, text, "=r,r,~{memory}", I32, [b.trunc(value, I32)], effects=True, together=True), I64)


@primitive(int64, int64, emit=_any_thread)
def any_thread(value: int) -> int:
    """1 if any thread of the block says other than 0, else 0; all of them wait for each other."""


@primitive(float32, float32, float32, emit=lambda b, x, y: asm(b, "div.rn.f32 $0, $1, $2;", "=f,f,f", F32, [x, y]))
def divide(x: float, y: float) -> float:
    """``x / y``, rounded to nearest."""


def _ballot(b: Any, value: Any) -> Any:
    text = "{ .reg .pred p; setp.ne.s32 p, $1, 0; vote.sync.ballot.b32 $0, p, 0xffffffff; }"
    return b.zext(asm(b, text, "=r,r", I32, [b.trunc(value, I32)], effects=True, together=True), I64)


@primitive(int64, int64, emit=_ballot)
def ballot(value: int) -> int:
    """A bit for each lane of the warp, which all take part: whether it says other than 0."""


@primitive(int64, int64, emit=lambda b, x: b.ctpop(x))
def ones(x: int) -> int:
    """How many bits are set."""


def _shuffle_from(b: Any, value: Any, lane: Any) -> Any:
    text = "shfl.sync.idx.b32 $0, $1, $2, 31, 0xffffffff;"
    return b.sext(
        asm(b, text, "=r,r,r", I32, [b.trunc(value, I32), b.trunc(lane, I32)], effects=True, together=True), I64
    )


@primitive(int64, int64, int64, emit=_shuffle_from)
def shuffle_from_i32(value: int, lane: int) -> int:
    """The number of a lane, 32 bits with a sign; all lanes of the warp must take part."""


@primitive(void, int64, *[int32] * 4, emit=lambda b, a, *v: _store_words(b, a, v))
def store_words(address: int, first: int, second: int, third: int, fourth: int) -> None:
    """Write four words of 32 bits to an address that sixteen divides, in one store."""


def _store_words(b: Any, address: Any, words: Any) -> None:
    value = ir.Constant(ir.VectorType(I32, 4), ir.Undefined)
    for i, word in enumerate(words):
        value = b.insert_element(value, word, i32(i))
    store(b, address, value, 16)


@primitive(float32, float32, float32, emit=lambda b, x, y: asm(b, "mul.rn.f32 $0, $1, $2;", "=f,f,f", F32, [x, y]))
def times(x: float, y: float) -> float:
    """``x * y``, rounded: never one instruction with what is added to it."""


def _float_shuffle(b: Any, value: Any, mask: Any) -> Any:
    text = "shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;"
    return asm(b, text, "=f,f,r", F32, [value, b.trunc(mask, I32)], effects=True, together=True)


@primitive(float32, float32, int64, emit=_float_shuffle)
def shuffle_xor_f32(value: float, mask: int) -> float:
    """The number of the lane whose index differs in the bits of ``mask``; all lanes of the warp must take part."""


@primitive(float32, float32, emit=lambda b, x: asm(b, "cvt.rni.f32.f32 $0, $1;", "=f,f", F32, [x]))
def rint(x: float) -> float:
    """The nearest whole number as a float, halves to even."""


@primitive(float32, float32, emit=lambda b, x: b.fpext(b.fptrunc(x, ir.HalfType()), F32))
def half(x: float) -> float:
    """A number rounded to float16, halves to even."""
