"""Primitives of kernels that attend and keep state: bits, bytes, words of shared memory, fences.

They are declared as those in ``ptx``.
"""

# numba-cuda and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportPrivateUsage=false
# pyright: reportAttributeAccessIssue=false, reportReturnType=false
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from pio.kernels.cuda.ptx import F16, F32, I8, I32, I64, SHARED, primitive
from pio.kernels.cuda.ptx import _asm as asm
from pio.kernels.cuda.ptx import _four as four_words
from pio.kernels.cuda.ptx import _load as load_at
from pio.kernels.cuda.ptx import _store as store_at

int64, int32, float32, void = types.int64, types.int32, types.float32, types.void


@primitive(int64, float32, emit=lambda b, x: b.sext(b.bitcast(x, I32), I64))
def bits_of(x: float) -> int:
    """The bits of a float32, as those of an int32."""


@primitive(float32, int64, emit=lambda b, n: b.bitcast(b.trunc(n, I32), F32))
def of_bits(n: int) -> float:
    """The float32 of these bits."""


@primitive(float32, float32, emit=lambda b, x: b.fpext(b.fptrunc(x, F16), F32))
def as_f16(x: float) -> float:
    """A number rounded to float16."""


@primitive(void, int64, int64, emit=lambda b, a, v: store_at(b, a, b.trunc(v, I8), 1))
def put_i8(address: int, value: int) -> None:
    """Write the lowest 8 bits."""


@primitive(int64, float32, emit=lambda b, x: b.sext(asm(b, "cvt.rni.s32.f32 $0, $1;", "=r,f", I32, [x]), I64))
def round_to_int(x: float) -> int:
    """The nearest whole number, halves to even; 0 for NaN."""


@primitive(float32, float32, float32, emit=lambda b, x, y: asm(b, "max.f32 $0, $1, $2;", "=f,f,f", F32, [x, y]))
def maximum(x: float, y: float) -> float:
    """The larger of two numbers; of a number and NaN the number."""


@primitive(float32, float32, float32, emit=lambda b, x, y: asm(b, "max.NaN.f32 $0, $1, $2;", "=f,f,f", F32, [x, y]))
def maximum_or_nan(x: float, y: float) -> float:
    """The larger of two numbers, NaN where either is none."""


@primitive(float32, float32, emit=lambda b, x: asm(b, "abs.f32 $0, $1;", "=f,f", F32, [x]))
def magnitude(x: float) -> float:
    """The number without its sign."""


@primitive(void, emit=lambda b: asm(b, "bar.warp.sync 0xffffffff;", "~{memory}", ir.VoidType(), [], effects=True))
def syncwarp() -> None:
    """Wait for all lanes of the warp; what they wrote to shared memory is there."""


@primitive(void, emit=lambda b: asm(b, "fence.acq_rel.gpu;", "~{memory}", ir.VoidType(), [], effects=True))
def fence() -> None:
    """Let all of the GPU see what was written before whatever is written behind; and see what others let be seen."""


def _get_others(b: Any, address: Any) -> Any:
    return asm(b, "ld.relaxed.gpu.global.f32 $0, [$1];", "=f,l", F32, [address], effects=True)


@primitive(float32, int64, emit=_get_others)
def get_others_f32(address: int) -> float:
    """Read a float32 that another block may have written."""


def _atomic_add(b: Any, address: Any, value: Any) -> Any:
    text = "atom.acq_rel.gpu.global.add.u32 $0, [$1], $2;"
    return b.zext(asm(b, text, "=r,l,r,~{memory}", I32, [address, b.trunc(value, I32)], effects=True), I64)


@primitive(int64, int64, int64, emit=_atomic_add)
def atomic_add(address: int, value: int) -> int:
    """Add to a number of 32 bits, without a break; the number before."""


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


@primitive((int32,) * 4, int64, emit=lambda b, a: four_words(b, a, SHARED))
def load_shared_words(address: int) -> tuple[int, int, int, int]:
    """Four words of shared memory, from an address that sixteen divides, in one load."""


def put_words(b: Any, address: Any, *words: Any) -> None:
    """Store four words of shared memory at once."""
    raw = ir.Constant(ir.VectorType(I32, 4), ir.Undefined)
    for i, word in enumerate(words):
        raw = b.insert_element(raw, word, ir.Constant(I32, i))
    store_at(b, address, raw, 16, SHARED)


@primitive(void, int64, int32, int32, int32, int32, emit=put_words)
def store_shared_words(address: int, w0: int, w1: int, w2: int, w3: int) -> None:
    """Write four words to shared memory, at an address that sixteen divides, in one store."""


@primitive(void, int64, emit=lambda b, a: asm(b, "prefetch.global.L2 [$0];", "l", ir.VoidType(), [a], effects=True))
def prefetch(address: int) -> None:
    """Ask for the line of memory of an address, which must be one of memory that is there."""
