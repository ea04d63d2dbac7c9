"""The only place with Numba options: how kernels are compiled, specialised by element type."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportUnknownLambdaType=false
from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, Final, TypeVar

import numba
from numba import boolean, float64, int64, void
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import typeof_impl

from pio.forks import free_in_children, llvm
from pio.kernels import _image, _objects, _watch
from pio.kernels._image import Compiled, Name
from pio.kernels._per_dtype import PerDtype, specialise
from pio.kernels._per_dtype import by_dtype as by_dtype
from pio.kernels._settings import PLAIN
from pio.kernels._source import Source
from pio.kernels.jobs import Serial
from pio.shelter import sheltered
from pio.threads import require_room

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# Kernels that promise the same bits however work is split keep the order of sums that is written down.
CONTRACT: Final = {"contract", "nsz"}

OPTIONS: Final[dict[str, Any]] = {
    "nogil": True,
    "error_model": "numpy",
}  # threads run at once; division by zero is not an exception

# Numba would also make what Python and C call a function by, its own ways: kernels call each other directly.
UNWRAPPED: Final[dict[str, Any]] = {} if PLAIN else {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

LLVM_ROOM: Final = 128 << 20  # bytes that compiling a kernel may take

_PARAMETERS: Final = {int: "q", "int": "q", float: "d", "float": "d"}
_RESULTS: Final = {**_PARAMETERS, bool: "?", "bool": "?", None: "", "None": ""}
_TYPES: Final = {"q": int64, "d": float64, "?": boolean, "": void}

_log = logging.getLogger("pio.kernels")

llvm()  # its lock is taken within the compiler's
free_in_children(global_compiler_lock._lock)


def kernel(fn: Callable[..., Any] | None = None, *, fastmath: set[str] | None = None) -> Any:
    """Compile a serial kernel: releases the GIL, no Python errors, sums in the written order unless told otherwise.

    Other kernels may call it with whatever their code has, Python with what its annotations say: integers and floats.
    """
    if fn is None:
        return partial(kernel, fastmath=fastmath)
    flags = fastmath or CONTRACT
    made = numba.njit(**OPTIONS, **UNWRAPPED, fastmath=flags)(fn)
    return made if PLAIN else SerialKernel(fn, made, flags)


class SerialKernel(Serial):
    """A serial kernel as its module defines it: compiled code of other kernels may call it too.

    Attributes:
        dispatcher: What Numba compiles where a kernel calls it.
    """

    def __init__(self, fn: Callable[..., Any], dispatcher: Any, fastmath: set[str]) -> None:
        self.dispatcher = dispatcher
        super().__init__(Source(name_of(fn), partial(_make_serial, fn, fastmath), self), fn)
        self.__name__, self.__doc__, self.__module__ = fn.__name__, fn.__doc__, fn.__module__
        self.__wrapped__ = fn


@typeof_impl.register(SerialKernel)
def _typeof_serial_kernel(value: SerialKernel, _: Any) -> Any:
    return numba.types.Dispatcher(value.dispatcher)


def kernel_per_dtype(fn: F) -> PerDtype[F]:
    """Compile one kernel for each element type.

    Every ``PerDtype`` that the function names (``load``, another such kernel) stands for the member of that type.
    """
    return PerDtype(lambda dtype: kernel(specialise(fn, dtype)))


def name_of(fn: Any) -> Name:
    """Return the name by which another process finds a kernel."""
    return Name(fn.__module__, fn.__dict__.get("generic", fn.__name__), fn.__dict__.get("dtype", ""))


def parameters(fn: Any) -> str:
    """Return a letter for each of a kernel's parameters, as its annotations say: ``d`` for floats, ``q`` for integers.

    Raises:
        TypeError: One has no annotation, or another.
    """
    names, found = inspect.get_annotations(fn), ""
    for p in inspect.signature(fn).parameters.values():
        named = names.get(p.name)
        if named not in _PARAMETERS or p.kind is not p.POSITIONAL_OR_KEYWORD:
            shown = "no annotation" if named is None else f"the annotation {getattr(named, '__name__', named)}"
            raise TypeError(
                f"kernel {fn.__name__}: parameter {p} has {shown}, expected a plain parameter annotated int (an "
                "address, a size or a flag) or float"
            )
        found += _PARAMETERS[named]
    return found


def _make_serial(fn: Any, fastmath: set[str], source: Source) -> Compiled:
    named = inspect.get_annotations(fn).get("return")
    if named not in _RESULTS:
        raise TypeError(
            f"kernel {fn.__name__} returns {named}; Python can call one that returns int, float, bool, None"
        )
    return make(source, fn, parameters(fn), _RESULTS[named], 0, fastmath=fastmath)


def make(
    source: Source,
    fn: Any,
    packed: str,
    result: str,
    per_thread: int,
    *,
    called: str | None = None,
    fastmath: set[str] = CONTRACT,
) -> Compiled:
    """Compile a kernel, unless it has been since, and keep it.

    Args:
        source: What the kernel is known by; knows the result.
        fn: The function to compile.
        packed: See ``Compiled.parameters``.
        result: See ``Compiled.result``.
        per_thread: See ``Compiled.parts_per_thread``.
        called: Letters of the function's own parameters, where they are others.
        fastmath: What Numba may assume of floats.
    """
    types = tuple(_TYPES[letter] for letter in (packed if called is None else called))

    def work() -> Compiled:
        with global_compiler_lock:
            if source.known is None:
                code, symbol, needs = _compile(source, fn, types, result, fastmath)
                source.known = Compiled(symbol, packed, result, per_thread, code)
                if needs:
                    _log.warning(
                        "kernel %s calls %s, so it is compiled anew in every process", source.name.full, needs[0]
                    )
                elif source.can_be_kept():
                    _image.keep(source.name, source.known)
            return source.known

    return uninterrupted(work)


def _compile(
    source: Source, fn: Any, types: tuple[Any, ...], result: str, fastmath: set[str]
) -> tuple[bytes, str, list[str]]:
    """Return an object file, its symbol, and what it needs of this process.

    Raises:
        TypeError: It needs Python, whose lock it does not hold.
    """
    _watch.say_started(source.name.full)
    try:
        # a copy: in a kernel that calls itself, the call is of another function than the one that is compiled here
        own = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
        own.__module__, own.__qualname__ = fn.__module__, fn.__qualname__
        made = CFunc(own, (types, _TYPES[result]), {}, {**OPTIONS, "fastmath": fastmath})._compile_uncached()
        symbol = source.symbol()
        code, needs = _objects.emit(made.library, made.fndesc.llvm_func_name, symbol, result)
        python = [name for name in needs if name.startswith(("Py", "_Py", "numba_gil"))]
        if python:
            raise TypeError(f"kernel {source.name.full} needs Python ({python[0]}), which kernels run without")
    finally:
        _watch.say_finished(source.name.full)
    return code, symbol, needs


def uninterrupted(work: Callable[[], T]) -> T:
    """Do work with the compiler that no signal is to leave half done, whoever waits for it.

    Where this thread compiles already, what it does now is part of that, and another thread would wait for its lock.

    Raises:
        MemoryError: There is too little memory to compile a kernel: LLVM would end the process.
    """
    require_room(LLVM_ROOM, "the compiler")
    return work() if global_compiler_lock.is_locked() else sheltered(work)
