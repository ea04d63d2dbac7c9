"""What threads tell each other through memory: atomic integers, sleeping and waking, and calls by address."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false
from __future__ import annotations

import ctypes
import time
from functools import reduce
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils

from pio.kernels import _llvm as ll
from pio.kernels.simd import int64, primitive, void
from pio.system import HERE, Call

_ORDER: Final = "seq_cst"
_CALLBACK = ir.FunctionType(ir.VoidType(), [ll.I64] * 3)
_NAP: Final = 200e-6  # seconds


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
    if HERE.machine == "x86_64":
        b.call(ll.function(b, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
    elif HERE.machine == "aarch64":
        # Most cores do nothing at ARM's own hint for this, yield. A barrier takes them about as long as a pause others.
        barrier = ll.function(b, "llvm.aarch64.isb", ir.VoidType(), [ll.I32])
        b.call(barrier, [ir.Constant(ll.I32, 15)])


@primitive(void, emit=_emit_pause)
def pause() -> None:
    """Tell the processor that this is a waiting loop."""


def _system_call(b: Any, call: Call, **given: Any) -> None:
    """Call a function of the system; all arguments are passed as int64s, which any processor takes for shorter ones."""
    values = [given[a] if isinstance(a, str) else ll.i64_const(a) for a in call.arguments]
    b.call(ll.function(b, call.function, ll.I64, [ll.I64] * len(values)), values)


def _emit_sleep(b: Any, at: Any, value: Any) -> None:
    place = cgutils.alloca_once_value(b, value)  # whose first four bytes are those of the int32
    _system_call(b, HERE.sleep, address=at, value=value, place=b.ptrtoint(place, ll.I64))


@primitive(void, int64, int64, emit=_emit_sleep)
def sleep(address: int, value: int) -> None:
    """Sleep until ``wake`` is called for this address, unless the int32 there is not ``value``."""
    if ctypes.c_int32.from_address(address).value == value:
        time.sleep(_NAP)


def _emit_wake(b: Any, at: Any) -> None:
    if HERE.wake is not None:
        _system_call(b, HERE.wake, address=at)


@primitive(void, int64, emit=_emit_wake)
def wake(address: int) -> None:
    """Wake the threads that sleep on an address."""


@primitive(void, emit=lambda b: _system_call(b, HERE.give_way))
def give_way() -> None:
    """Let another thread have this core."""
    time.sleep(0)


def _emit_now(b: Any) -> Any:
    times = cgutils.alloca_once(b, ir.ArrayType(ll.I64, len(HERE.clock_units)))  # in the entry block: callers loop
    _system_call(b, HERE.clock, result=b.ptrtoint(times, ll.I64))
    found = b.load(times, typ=ir.ArrayType(ll.I64, len(HERE.clock_units)))
    parts = [b.mul(b.extract_value(found, i), ll.i64_const(unit)) for i, unit in enumerate(HERE.clock_units)]
    return reduce(b.add, parts)


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
