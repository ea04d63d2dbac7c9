"""Instructions of AMX: eight registers of up to 16 rows of 64 bytes, and products of two of them added to a third.

A product takes bytes by fours, as AVX-512 VNNI does: of a row of the left tile four, of each column of the right one
four, and adds them to an int32 of the third. The sizes of all registers are set first, and given up at last: a thread
that is put aside with tiles in use has eight kilobytes more to be kept. Registers are named by their numbers here; no
others use them, so that what one primitive has loaded another one finds.
"""

# llvmlite comes without type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from pio.kernels import _llvm as ll

ROWS: Final = 16  # of a register
WIDTH: Final = 64  # bytes of a row

_PALETTE, _WIDTHS, _HEIGHTS = 1, 16, 48  # where a configuration says what
_CONFIGURATION: Final = 64  # bytes
_VOID: Final = ir.VoidType()
_BYTES: Final = ir.PointerType(ll.I8)


def _call(b: Any, name: str, arguments: list[Any]) -> None:
    b.call(ll.function(b, f"llvm.x86.{name}", _VOID, [a.type for a in arguments]), arguments)


def _register(number: int) -> Any:
    return ir.Constant(ll.I8, number)


def configure(b: Any, sizes: Mapping[int, tuple[int, int]]) -> None:
    """Set the rows and the bytes of a row of registers; all are zero then, and those without a size cannot be used."""
    said = [0] * _CONFIGURATION
    said[0] = _PALETTE
    for register, (rows, width) in sizes.items():
        said[_WIDTHS + 2 * register], said[_HEIGHTS + register] = width, rows
    ty = ir.VectorType(ll.I8, _CONFIGURATION)
    _call(b, "ldtilecfg", [b.bitcast(cgutils.alloca_once_value(b, ir.Constant(ty, said)), _BYTES)])


def release(b: Any) -> None:
    """Give all registers up."""
    _call(b, "tilerelease", [])


def load(b: Any, register: int, address: Any, stride: Any) -> None:
    """Read a tile whose rows lie a stride apart."""
    _call(b, "tileloadd64", [_register(register), ll.pointer(b, address, ll.I8), stride])


def store(b: Any, register: int, address: Any, stride: Any) -> None:
    """Write a tile whose rows lie a stride apart."""
    _call(b, "tilestored64", [_register(register), ll.pointer(b, address, ll.I8), stride])


def clear(b: Any, register: int) -> None:
    """Make all of a tile zero."""
    _call(b, "tilezero", [_register(register)])


def multiply(b: Any, sums: int, left: int, right: int, *, unsigned: bool = False) -> None:
    """Add the products of signed bytes of the left tile with those of the right one, signed or unsigned."""
    _call(b, f"tdpbs{'u' if unsigned else 's'}d", [_register(r) for r in (sums, left, right)])
