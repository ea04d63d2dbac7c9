"""Products of small matrices by the tensor cores, as they are; see ``fragments`` for more."""

# numba-cuda and llvmlite come without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false, reportUnknownParameterType=false, reportCallIssue=false
from __future__ import annotations

from typing import Any

from llvmlite import ir

from pio.kernels.cuda.ptx.emit import F32, I32, asm, float32, int32, primitive


def _mma_bf16(b: Any, *v: Any) -> list[Any]:
    text = (
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    )
    result = asm(b, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", ir.LiteralStructType([F32] * 4), [*v[4:], *v[:4]])
    return [b.extract_value(result, i) for i in range(4)]


@primitive((float32,) * 4, *[float32] * 4, *[int32] * 6, emit=_mma_bf16)
def mma_bf16(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):  # type: ignore[no-untyped-def]
    """Add the product of 16 x 16 and 16 x 8 bfloat16 to 16 x 8 float32, over a warp (m16n8k16)."""


def _mma_s8(b: Any, *v: Any) -> list[Any]:
    text = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    result = asm(b, text, "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r", ir.LiteralStructType([I32] * 4), [*v[4:], *v[:4]])
    return [b.extract_value(result, i) for i in range(4)]


@primitive((int32,) * 4, *[int32] * 10, emit=_mma_s8)
def mma_s8(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):  # type: ignore[no-untyped-def]
    """Add the product of 16 x 32 and 32 x 8 int8 to 16 x 8 int32, over a warp (m16n8k32)."""


def _pack_bf16(b: Any, low: Any, high: Any) -> Any:
    return asm(b, "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f", I32, [high, low])


@primitive(int32, float32, float32, emit=_pack_bf16)
def pack_bf16(low: float, high: float) -> int:
    """Two numbers rounded to bfloat16, in one word."""
