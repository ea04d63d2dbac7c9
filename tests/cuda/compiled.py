"""Compiles kernels of numba-cuda to PTX where there is no GPU, for the tests that need them, and runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from ptx import Memory, Module

Array = np.ndarray[Any, Any]

if not find_spec("numba_cuda") or not find_spec("cuda.bindings.nvvm"):
    pytest.skip('needs numba-cuda and its compiler: pip install "numba-cuda[cu13]"', allow_module_level=True)

if not hasattr(np, "row_stack"):  # numba-cuda 0.30 asks for it, and NumPy 2.5 has it no longer
    np.row_stack = np.vstack  # type: ignore[attr-defined]

from llvmlite import ir  # noqa: E402
from numba import cuda, types  # noqa: E402
from numba.cuda import dispatcher  # noqa: E402
from numba.cuda.extending import intrinsic  # noqa: E402

CAPABILITY = (9, 0)


class _Device:
    compute_capability = CAPABILITY


dispatcher.get_current_device = lambda: _Device  # functions of a device are compiled for this one, not for one here


class Kernel:
    """A kernel with its PTX.

    >>> kernel = Kernel(scale, types.int64, types.int64, types.float32)
    >>> kernel(3, 128, [y, x, 0.5])                  # arrays are held, and their addresses are the arguments
    """

    def __init__(self, function: Callable[..., None], *signature: Any, **options: Any) -> None:
        """options: of the compiler, as fastmath=True or cc=(8, 0)."""
        options = {"device": False, "abi": "numba", "cc": CAPABILITY, "output": "ptx"} | options
        self.text, _ = cuda.compile(function, types.void(*signature), **options)
        self.module = Module(self.text)

    def __call__(self, grid: Any, block: Any, args: Sequence[Any], shared: int = 0, **options: Any) -> None:
        memory = Memory()
        given = [memory.hold(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
        self.module.launch(self.module.entry, grid, block, given, shared, memory=memory, **options)


# Loads and stores by address


def _place(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer(1))


def _load(kind: Any, result: Any) -> Callable[..., Any]:
    @intrinsic
    def load(context, address):
        def generate(context, builder, signature, args):
            found = builder.load(_place(builder, args[0], kind))
            found.align = kind.width // 8 if isinstance(kind, ir.IntType) else 4
            return found

        return result(types.int64), generate

    return load


def _store(kind: Any, given: Any) -> Callable[..., Any]:
    @intrinsic
    def store(context, address, value):
        def generate(context, builder, signature, args):
            made = builder.store(args[1], _place(builder, args[0], kind))
            made.align = kind.width // 8 if isinstance(kind, ir.IntType) else 4
            return context.get_dummy_value()

        return types.void(types.int64, given), generate

    return store


load_f32, store_f32 = _load(ir.FloatType(), types.float32), _store(ir.FloatType(), types.float32)
load_i32, store_i32 = _load(ir.IntType(32), types.int32), _store(ir.IntType(32), types.int32)


# PTX in the text


def ptx(text: str, constraints: str, results: Sequence[Any], *given: Any) -> Callable[..., Any]:
    """Return a function that is an instruction of PTX; several results come as a tuple."""
    names = {types.float32: ir.FloatType(), types.int32: ir.IntType(32), types.uint32: ir.IntType(32)}
    names[types.int64] = ir.IntType(64)
    inner = [names[kind] for kind in results]
    back = ir.VoidType() if not inner else inner[0] if len(inner) == 1 else ir.LiteralStructType(inner)
    outer = types.void if not inner else results[0] if len(inner) == 1 else types.Tuple(tuple(results))
    form = ir.FunctionType(back, [names[kind] for kind in given])

    def generate(context, builder, signature, args):
        found = builder.call(ir.InlineAsm(form, text, constraints, True), args)
        if not inner:
            return context.get_dummy_value()
        if len(inner) == 1:
            return found
        parts = [builder.extract_value(found, n) for n in range(len(inner))]
        return context.make_tuple(builder, signature.return_type, parts)

    # An intrinsic takes as many arguments as its function has.
    letters = ", ".join(f"a{n}" for n in range(len(given)))
    space: dict[str, Any] = {"signature": outer(*given), "generate": generate}
    exec(f"def instruction(context, {letters}):\n    return signature, generate", space)
    return intrinsic(space["instruction"])


@intrinsic
def shared_address(context, array):
    """Return the address of a shared array in shared memory."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        there = builder.addrspacecast(data, ir.IntType(8).as_pointer(3))
        return builder.ptrtoint(there, ir.IntType(32))

    return types.int32(array), generate
