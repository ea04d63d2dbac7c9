"""Threads: which one this is, of how many, and what they wait for."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from llvmlite import ir
from numba.cuda import syncthreads as _syncthreads

from pio.kernels.cuda.ptx.emit import I32, I64, asm, int64, primitive, void

WARP: Final = 32
syncthreads = cast("Callable[[], None]", _syncthreads)  # waits until all threads of the block are there


def _special(name: str) -> Callable[..., Any]:
    return lambda b: b.zext(asm(b, f"mov.u32 $0, %{name};", "=r", I32, []), I64)


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


def _any_thread(b: Any, value: Any) -> Any:
    text = "{ .reg .pred p, q; setp.ne.s32 p, $1, 0; barrier.red.or.pred.aligned q, 0, p; selp.s32 $0, 1, 0, q; }"
    return b.zext(asm(b, text, "=r,r,~{memory}", I32, [b.trunc(value, I32)], effects=True), I64)


@primitive(int64, int64, emit=_any_thread)
def any_thread(value: int) -> int:
    """1 if any thread of the block says other than 0, else 0; all of them wait for each other."""


@primitive(void, emit=lambda b: asm(b, "fence.acq_rel.gpu;", "~{memory}", ir.VoidType(), [], effects=True))
def fence() -> None:
    """Let all of the GPU see what was written before whatever is written behind; and see what others let be seen."""


@primitive(void, emit=lambda b: asm(b, "bar.warp.sync 0xffffffff;", "~{memory}", ir.VoidType(), [], effects=True))
def syncwarp() -> None:
    """Wait for all lanes of the warp; what they wrote to shared memory is there."""
