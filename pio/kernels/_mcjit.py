"""Object files laid into memory by LLVM: those that `_elf` does not know, of other systems and processors mostly."""

# llvmlite comes without type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false
from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any, Final

from pio.forks import free_in_children, llvm
from pio.shelter import sheltered
from pio.system import HERE
from pio.threads import require_room

LOAD_ROOM: Final = 32 << 20  # bytes: LLVM ends the process where it gets none

_lock = threading.RLock()
_code: dict[str, tuple[int, Any]] = {}

binding: Any = llvm()
free_in_children(_lock)


def load(symbol: str, code: bytes) -> int:
    """Return the address of a symbol that an object file defines; one that is loaded is not loaded again.

    Raises:
        MemoryError: There is too little memory; LLVM would end the process.
    """
    found = _code.get(symbol)
    if found is None:
        require_room(LOAD_ROOM, "a kernel")
        found = sheltered(lambda: _load(symbol, code))  # no signal is to leave it half done
    return found[0]


def _load(symbol: str, code: bytes) -> tuple[int, Any]:
    with _lock:
        if symbol not in _code:
            engine, file = _engine(), binding.ObjectFileRef.from_data(code)
            engine.add_object_file(file)
            engine.finalize_object()
            _code[symbol] = int(engine.get_function_address(symbol)), code  # which LLVM may still read
        return _code[symbol]


@cache
def _engine() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    for name, address in HERE.symbols().items():
        binding.add_symbol(name, address)
    target = binding.Target.from_triple(binding.get_process_triple())
    made = binding.create_mcjit_compiler(binding.parse_assembly(""), target.create_target_machine(jit=True))
    _keep_for_ever(made)
    return made


def _keep_for_ever(thing: Any) -> None:
    """Have a thing outlive the interpreter: helpers are still in the code of kernels as it leaves."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
