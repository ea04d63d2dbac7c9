"""What threads tell each other through memory: atomic integers, sleeping and waking, and calls by address."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false
from __future__ import annotations

import ctypes
import os
import platform
import time
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels._pool import FUTEX
from pio.kernels.simd import int64, primitive, void

_ORDER: Final = "seq_cst"
_CALLBACK = ir.FunctionType(ir.VoidType(), [ll.I64] * 3)
_WAIT_PRIVATE, _WAKE_PRIVATE, _EVERYBODY = 128, 129, 1 << 30
_NAP_US: Final = 200
_PAUSE: Final = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}.get(platform.machine())
_CLOCK_MONOTONIC: Final = getattr(time, "CLOCK_MONOTONIC", 1)


def _word(b: Any, address: Any) -> Any:
    return ll.pointer(b, address, ll.I64)


@primitive(int64, int64, emit=lambda b, at: b.load_atomic(_word(b, at), _ORDER, 8, typ=ll.I64))
def load(address: int) -> int:
    """Read an int64 that other threads write."""
    return ctypes.c_int64.from_address(address).value


@primitive(void, int64, int64, emit=lambda b, at, value: _discard(b.store_atomic(value, _word(b, at), _ORDER, 8)))
def store(address: int, value: int) -> None:
    """Write an int64 that other threads read."""
    ctypes.c_int64.from_address(address).value = value


@primitive(int64, int64, int64, emit=lambda b, at, value: b.atomic_rmw("add", _word(b, at), value, _ORDER))
def add(address: int, value: int) -> int:
    """Add to an int64; returns what it was."""
    word = ctypes.c_int64.from_address(address)
    before = word.value
    word.value = before + value
    return before


def _emit_replace(b: Any, at: Any, old: Any, new: Any) -> Any:
    return b.extract_value(b.cmpxchg(_word(b, at), old, new, _ORDER, _ORDER), 1)


@primitive(types.boolean, int64, int64, int64, emit=_emit_replace)
def replace(address: int, old: int, new: int) -> bool:
    """Write ``new`` if the int64 is ``old``; whether it was."""
    word = ctypes.c_int64.from_address(address)
    found = word.value == old
    if found:
        word.value = new
    return found


def _emit_call(b: Any, function: Any, arguments: Any, part: Any, parts: Any) -> None:
    b.call(b.inttoptr(function, _CALLBACK.as_pointer()), [arguments, part, parts])


@primitive(void, int64, int64, int64, int64, emit=_emit_call)
def call(function: int, arguments: int, part: int, parts: int) -> None:
    """Call the C function ``void (int64, int64, int64)`` at an address."""
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(function)(arguments, part, parts)


def _emit_pause(b: Any) -> None:
    if _PAUSE is not None:
        b.call(ll.function(b, _PAUSE, ir.VoidType(), []), [])
    elif platform.machine() == "aarch64":
        hint = ll.function(b, "llvm.aarch64.hint", ir.VoidType(), [ll.I32])
        b.call(hint, [ir.Constant(ll.I32, 1)])


@primitive(void, emit=_emit_pause)
def pause() -> None:
    """Tell the processor that this is a waiting loop."""


def _system_call(b: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(ll.I64, [ll.I64], var_arg=True)
    function = b.module.globals.get("syscall") or ir.Function(b.module, kind, "syscall")
    filled = [*arguments, *[0] * (7 - len(arguments))]
    return b.call(function, [ll.i64_const(a) if isinstance(a, int) else a for a in filled])


def _emit_sleep(b: Any, at: Any, value: Any) -> None:
    if FUTEX is not None:
        _system_call(b, FUTEX, at, _WAIT_PRIVATE, value)
    else:
        b.call(ll.function(b, "usleep", ll.I32, [ll.I32]), [ir.Constant(ll.I32, _NAP_US)])


@primitive(void, int64, int64, emit=_emit_sleep)
def sleep(address: int, value: int) -> None:
    """Sleep until ``wake`` is called for this address, unless the int32 there is not ``value``."""
    if ctypes.c_int32.from_address(address).value == value:
        time.sleep(_NAP_US * 1e-6)


def _emit_wake(b: Any, at: Any) -> None:
    if FUTEX is not None:
        _system_call(b, FUTEX, at, _WAKE_PRIVATE, _EVERYBODY)


@primitive(void, int64, emit=_emit_wake)
def wake(address: int) -> None:
    """Wake the threads that sleep on an address."""


@primitive(void, emit=lambda b: _discard(b.call(ll.function(b, "sched_yield", ll.I32, []), [])))
def give_way() -> None:
    """Let another thread have this core."""
    os.sched_yield()


def _emit_now(b: Any) -> Any:
    pair = cgutils.alloca_once(b, ir.ArrayType(ll.I64, 2))  # in the entry block: callers loop
    clock = ll.function(b, "clock_gettime", ll.I32, [ll.I32, ir.PointerType(ll.I64)])
    b.call(clock, [ir.Constant(ll.I32, _CLOCK_MONOTONIC), b.bitcast(pair, ir.PointerType(ll.I64))])
    value = b.load(pair, typ=ir.ArrayType(ll.I64, 2))
    return b.add(b.mul(b.extract_value(value, 0), ll.i64_const(1_000_000_000)), b.extract_value(value, 1))


@primitive(int64, emit=_emit_now)
def now() -> int:
    """Nanoseconds of a clock that only goes forward."""
    return time.monotonic_ns()


@primitive(int64, int64, emit=lambda b, at: ll.load(b, at, ll.I64, 8))
def get_i64(address: int) -> int:
    """Read one int64 at an address."""
    return ctypes.c_int64.from_address(address).value


@primitive(types.float64, int64, emit=lambda b, at: ll.load(b, at, ir.DoubleType(), 8))
def get_f64(address: int) -> float:
    """Read one float64 at an address."""
    return ctypes.c_double.from_address(address).value


def _discard(_: Any) -> None:
    """An emitter of nothing."""
