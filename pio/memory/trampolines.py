"""Machine code that C libraries call back to drop a Python object.

A ctypes callback will not do: it runs Python code, and libraries free DLPack capsules while an exception is pending,
which Python code on that path would swallow. Dropping one reference is safe there.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple

from pio.forks import llvm
from pio.shelter import import_whole

_increase = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))


class Trampolines(NamedTuple):
    """Addresses of the compiled functions.

    Attributes:
        capsule_destructor: ``void (PyObject *capsule)``; drops the object in the capsule's context if the capsule
            still has its first name, so that nobody took over what it held.
        deleter: ``void (void *managed)``; takes the GIL and drops the object whose pointer is in the managed struct.
    """

    capsule_destructor: int
    deleter: int


def make_immortal(value: object) -> None:
    """Keep ``value`` until the process ends, because C code holds its address."""
    _increase(value)


@cache
def compiled(capsule_name: int, context_offset: int) -> Trampolines:
    """Compile the functions for capsules of one name.

    Args:
        capsule_name: Address of the name, a C string that lives as long as the process.
        context_offset: Bytes into the managed struct where it keeps the pointer to the Python object.
    """
    binding = llvm()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(_source(capsule_name, context_offset))
    module.verify()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    make_immortal(engine)
    return Trampolines(engine.get_function_address("destroy"), engine.get_function_address("delete"))


def _source(capsule_name: int, context_offset: int) -> str:
    """Return LLVM source; addresses travel as integers, and the pointer types are those of the LLVM at hand."""
    ir: Any = import_whole("llvmlite.ir")
    word, number, nothing = ir.IntType(64), ir.IntType(32), ir.VoidType()

    def call(build: Any, name: str, result: Any, *arguments: Any) -> Any:
        address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return build.call(build.inttoptr(word(address), kind.as_pointer()), arguments)

    module = ir.Module("pio_trampolines")
    destroy = ir.Function(module, ir.FunctionType(nothing, [word]), "destroy")
    build = ir.IRBuilder(destroy.append_basic_block())
    unused = call(build, "PyCapsule_IsValid", number, destroy.args[0], word(capsule_name))
    with build.if_then(build.icmp_signed("!=", unused, number(0))):
        call(build, "Py_DecRef", nothing, call(build, "PyCapsule_GetContext", word, destroy.args[0]))
    build.ret_void()

    delete = ir.Function(module, ir.FunctionType(nothing, [word]), "delete")
    build = ir.IRBuilder(delete.append_basic_block())
    running = call(build, "Py_IsInitialized", number)  # after the interpreter is gone there is nothing left to drop
    with build.if_then(build.icmp_signed("!=", running, number(0))):
        state = call(build, "PyGILState_Ensure", number)
        field = build.inttoptr(build.add(delete.args[0], word(context_offset)), word.as_pointer())
        call(build, "Py_DecRef", nothing, build.load(field))
        call(build, "PyGILState_Release", nothing, state)
    build.ret_void()
    return str(module)
