"""Shared memory of a block, by addresses of its own, and copies to it that go on meanwhile."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from typing import Any

from llvmlite import ir

from pio.kernels._per_dtype import PerDtype
from pio.kernels.cuda.ptx.emit import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    SHARED,
    asm,
    float32,
    float64,
    i32,
    int32,
    int64,
    load_at,
    named,
    primitive,
    put_words,
    read_words,
    store_at,
    void,
)
from pio.kernels.cuda.ptx.memory import scalar_loads, scalar_stores


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


load_shared, store_shared = scalar_loads(SHARED, "load_shared"), scalar_stores(SHARED, "store_shared")
get_shared_f32, put_shared_f32 = load_shared["float32"], store_shared["float32"]


@primitive(int64, int64, emit=lambda b, a: b.sext(load_at(b, a, I32, 4, SHARED), I64))
def get_shared_i32(address: int) -> int:
    """Read an int32 of shared memory."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, b.trunc(v, I32), 4, SHARED))
def put_shared_i32(address: int, value: int) -> None:
    """Write the lower 32 bits to shared memory."""


@primitive(int64, int64, emit=lambda b, a: load_at(b, a, I64, 8, SHARED))
def get_shared_i64(address: int) -> int:
    """Read an int64 of shared memory."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, v, 8, SHARED))
def put_shared_i64(address: int, value: int) -> None:
    """Write an int64 to shared memory."""


@primitive(float64, int64, emit=lambda b, a: load_at(b, a, F64, 8, SHARED))
def get_shared_f64(address: int) -> float:
    """Read a float64 of shared memory."""


@primitive(void, int64, float64, emit=lambda b, a, v: store_at(b, a, v, 8, SHARED))
def put_shared_f64(address: int, value: float) -> None:
    """Write a float64 of shared memory."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, b.trunc(v, I16), 2, SHARED))
def put_shared_u16(address: int, value: int) -> None:
    """Write the lower sixteen bits to shared memory."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, b.trunc(v, I8), 1, SHARED))
def put_shared_i8(address: int, value: int) -> None:
    """Write the lowest 8 bits to shared memory."""


def _shared_word(b: Any, address: Any) -> Any:
    return load_at(b, address, I32, 4, SHARED)


@primitive(int32, int64, emit=_shared_word)
def get_shared_word(address: int) -> int:
    """A word of shared memory."""


def _load_shared_four(b: Any, address: Any) -> list[Any]:
    raw = load_at(b, address, ir.VectorType(F32, 4), 16, SHARED)
    return [b.extract_element(raw, i32(i)) for i in range(4)]


@primitive((float32,) * 4, int64, emit=_load_shared_four)
def load_shared_four(address: int) -> tuple[float, float, float, float]:
    """Four float32 of shared memory in a row, from an address that sixteen divides, in one load."""


@primitive((int32,) * 4, int64, emit=lambda b, a: read_words(b, a, 4, SHARED))
def load_shared_words(address: int) -> tuple[int, int, int, int]:
    """Four words of shared memory, from an address that sixteen divides, in one load."""


@primitive(void, int64, int32, int32, int32, int32, emit=put_words)
def store_shared_words(address: int, w0: int, w1: int, w2: int, w3: int) -> None:
    """Write four words to shared memory, at an address that sixteen divides, in one store."""


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
