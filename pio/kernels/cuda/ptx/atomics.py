"""Atomics of whole numbers: what they leave does not depend on who comes first."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pio.kernels.cuda.ptx.emit import GLOBAL, I32, I64, SHARED, asm, int64, primitive


def _atomic(text: str, space: int, ty: Any) -> Callable[..., Any]:
    letter = "l" if ty is I64 else "r"
    place = "r" if space == SHARED else "l"

    def emit(b: Any, address: Any, value: Any) -> Any:
        at = b.trunc(address, I32) if space == SHARED else address
        value = value if ty is I64 else b.trunc(value, ty)
        found = asm(
            b, f"{text} $0, [$1], $2;", f"={letter},{place},{letter},~{{memory}}", ty, [at, value], effects=True
        )
        return found if ty is I64 else b.sext(found, I64)

    return emit


@primitive(int64, int64, int64, emit=_atomic("atom.shared.add.u32", SHARED, I32))
def add_shared(address: int, value: int) -> int:
    """Add to an int32 of shared memory; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.shared.min.s64", SHARED, I64))
def lower_shared(address: int, value: int) -> int:
    """Make an int64 of shared memory no larger than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.min.s64", GLOBAL, I64))
def lower_i64(address: int, value: int) -> int:
    """Make an int64 no larger than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.min.s32", GLOBAL, I32))
def lower_i32(address: int, value: int) -> int:
    """Make an int32 no larger than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.max.s32", GLOBAL, I32))
def raise_i32(address: int, value: int) -> int:
    """Make an int32 no smaller than a number; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.min.u32", GLOBAL, I32))
def lower_u32(address: int, value: int) -> int:
    """Make 32 bits no larger than others, both without a sign; return what was there."""


@primitive(int64, int64, int64, emit=_atomic("atom.global.max.u32", GLOBAL, I32))
def raise_u32(address: int, value: int) -> int:
    """Make 32 bits no smaller than others, both without a sign; return what was there."""


def _atomic_add(b: Any, address: Any, value: Any) -> Any:
    text = "atom.acq_rel.gpu.global.add.u32 $0, [$1], $2;"
    return b.zext(asm(b, text, "=r,l,r,~{memory}", I32, [address, b.trunc(value, I32)], effects=True), I64)


@primitive(int64, int64, int64, emit=_atomic_add)
def atomic_add(address: int, value: int) -> int:
    """Add to a number of 32 bits, without a break; the number before."""
