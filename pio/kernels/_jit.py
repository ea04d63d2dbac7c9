"""The only place with Numba options: how kernels are compiled, specialised by element type, and who hears of it."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false
# pyright: reportUnknownLambdaType=false, reportIncompatibleMethodOverride=false, reportPrivateUsage=false
from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import llvmlite.binding
import numba
from numba import float64, int64, void
from numba.core import config as numba_config
from numba.core import event
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock

from pio.kernels import _kept
from pio.kernels._forks import free_in_children
from pio.shelter import sheltered
from pio.threads import require_room

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# "fast" would assume that no value is NaN or infinite, and a masked softmax works with -inf.
FASTMATH: Final = {"reassoc", "contract", "nsz", "arcp"}
# Kernels that promise the same bits however work is split keep the order of sums that is written down.
CONTRACT: Final = {"contract", "nsz"}

BOUNDSCHECK: Final = bool(numba_config.BOUNDSCHECK)
OPTIONS: Final = {"nogil": True, "error_model": "numpy"}  # threads run at once; division by zero is not an exception

LLVM_ROOM: Final = 128 << 20  # bytes that compiling a kernel may take

COMPILE: Final = "numba:compile"  # Numba's event around each compilation that its cache does not spare
LOADED: Final = _kept.LOADED  # our own, after each kernel that the cache folder held
ELSEWHERE: Final = "pio:elsewhere"  # our own, around each kernel that another process compiles for this one
LEFT: Final = "pio:left"  # our own, with a number: see announce_left

free_in_children(global_compiler_lock._lock, llvmlite.binding.ffi.lib._lock._lock)


def kernel(fn: Callable[..., Any] | None = None, *, fastmath: set[str] | None = None) -> Any:
    """Compile a serial kernel: releases the GIL, no Python errors, sums in the written order unless told otherwise."""
    return _compile(fn, fastmath=fastmath or CONTRACT)


def _compile(fn: Any, **options: Any) -> Any:
    if fn is None:
        return lambda f: _compile(f, **options)
    dispatcher = numba.njit(**OPTIONS, **options)(fn)
    if not numba_config.DISABLE_JIT:
        found = _kept.kernel_cache(fn)
        if found is not None:
            dispatcher._cache = found
        compile_here = dispatcher.compile
        dispatcher.compile = lambda signature: uninterrupted(lambda: compile_here(signature))
    return dispatcher


def uninterrupted(work: Callable[[], T]) -> T:
    """Do work with the compiler that no signal is to leave half done, whoever waits for it.

    Where this thread compiles already, what it does now is part of that, and another thread would wait for its lock.

    Raises:
        MemoryError: There is too little memory to compile or load a kernel: LLVM would end the process.
    """
    require_room(LLVM_ROOM, "the compiler")
    return work() if global_compiler_lock.is_locked() else sheltered(work)


def callback(fn: Any) -> CFunc:
    """Return ``fn(int64, int64, int64)`` as a C function that takes no GIL, yet to be compiled."""
    made = CFunc(fn, ((int64,) * 3, void), {}, {**OPTIONS, "fastmath": CONTRACT})
    found = _kept.kernel_cache(fn)
    if found is not None:
        made._cache = found
    return made


def floats(fn: Any) -> list[bool]:
    """Return which of a kernel's parameters are floats, as its annotations say; the others are integers.

    Raises:
        TypeError: One has no annotation, or another.
    """
    names, found = inspect.get_annotations(fn), list[bool]()
    for p in inspect.signature(fn).parameters.values():
        named = names.get(p.name)
        if named not in (int, "int", float, "float") or p.kind is not p.POSITIONAL_OR_KEYWORD:
            shown = "no annotation" if named is None else f"the annotation {getattr(named, '__name__', named)}"
            raise TypeError(
                f"kernel {fn.__name__}: parameter {p} has {shown}, expected a plain parameter annotated int (an "
                "address, a size or a flag) or float"
            )
        found.append(named in (float, "float"))
    return found


def signature(fn: Any) -> tuple[Any, ...]:
    """Return the types that a kernel is compiled for, as its annotations name them."""
    return tuple(float64 if is_float else int64 for is_float in floats(fn))


def is_kept(made: Any) -> bool:
    """Return whether the folder of compiled kernels holds this serial kernel or callback, or can never hold it."""
    if not isinstance(made._cache, _kept.KernelCache):
        return True
    if isinstance(made, CFunc):
        return made._cache.holds(made._sig, CFunc._targetdescr)
    return made._cache.holds(signature(made.py_func), made.targetdescr)


class PerDtype(Generic[T]):
    """One thing for each element type, made when first asked for: ``load["bfloat16"]``."""

    if TYPE_CHECKING:
        # inside a kernel that is made for each type, the name stands for the member of that type
        __call__: T

        def __mul__(self, other: int) -> int: ...
        def __radd__(self, other: int) -> int: ...
        def __rsub__(self, other: int) -> int: ...
        def __rmul__(self, other: int) -> int: ...
        def __index__(self) -> int: ...

    def __init__(self, make: Callable[[str], T]) -> None:
        self._make = make
        self._made: dict[str, T] = {}

    def __getitem__(self, dtype: str) -> T:
        found = self._made.get(dtype)
        if found is None:
            found = self._made[dtype] = self._make(dtype)
        return found


def by_dtype(made: Mapping[str, T]) -> PerDtype[T]:
    """Choose among existing functions by element type."""
    return PerDtype(made.__getitem__)


def kernel_per_dtype(fn: F) -> PerDtype[F]:
    """Compile one kernel for each element type.

    Every ``PerDtype`` that the function names (``load``, another such kernel) stands for the member of that type.
    """
    return PerDtype(lambda dtype: kernel(specialise(fn, dtype)))


def specialise(fn: F, dtype: str) -> F:
    """Return fn with its per-dtype globals replaced; its name carries the dtype, which keeps cache entries apart."""
    scope = dict(fn.__globals__)
    for name in fn.__code__.co_names:
        value = scope.get(name)
        if isinstance(value, PerDtype):
            scope[name] = cast("PerDtype[Any]", value)[dtype]
    made = types.FunctionType(fn.__code__, scope, f"{fn.__name__}_{dtype}", fn.__defaults__)
    made.__qualname__ = f"{fn.__qualname__}_{dtype}"
    made.__module__, made.__doc__, made.__annotations__ = fn.__module__, fn.__doc__, fn.__annotations__
    made.__dict__.update(generic=fn.__name__, dtype=dtype)
    return cast("F", made)


class _Watcher(event.Listener):
    def __init__(
        self,
        started: Callable[[str], None],
        finished: Callable[[str], None],
        loaded: Callable[[str], None],
        left: Callable[[int], None],
    ) -> None:
        self._started, self._finished, self._loaded, self._left = started, finished, loaded, left

    def on_start(self, event: Any) -> None:
        if event.kind == LEFT:
            self._left(event.data["left"])
            return
        name = _kernel_name(event)
        if name is not None:
            self._started(name)

    def on_end(self, event: Any) -> None:
        name = _kernel_name(event)
        if name is not None:
            (self._loaded if event.kind == LOADED else self._finished)(name)


def _kernel_name(event: Any) -> str | None:
    """The kernel that an event is about; None where the host program compiles something of its own."""
    if event.kind != COMPILE:
        return event.data["name"]
    made = event.data["dispatcher"]
    kept = isinstance(getattr(made, "_cache", None), _kept.KernelCache)
    return made.py_func.__name__ if kept or made.py_func.__module__.startswith("pio.kernels") else None


def announce(kind: str, status: event.EventStatus, name: str) -> None:
    """Tell those who watch about a kernel."""
    event.broadcast(event.Event(kind, status, {"name": name}))


def announce_left(kernels: int) -> None:
    """Tell those who watch how many kernels compiler processes have not begun: all of them first, none at the end."""
    event.broadcast(event.Event(LEFT, event.EventStatus.START, {"left": kernels}))


@contextmanager
def watch_compilation(
    started: Callable[[str], None],
    finished: Callable[[str], None],
    loaded: Callable[[str], None],
    left: Callable[[int], None] = lambda _: None,
) -> Generator[None, None, None]:
    """Call back, in the thread that compiles, with the names of kernels compiled or loaded from the cache folder.

    ``left`` is called with how many kernels compiler processes have still to begin.
    """
    watcher = _Watcher(started, finished, loaded, left)
    with ExitStack() as stack:
        for kind in (COMPILE, LOADED, ELSEWHERE, LEFT):
            stack.enter_context(event.install_listener(kind, watcher))
        yield


def cpu_features() -> dict[str, bool]:
    """Return what the processor can do, by LLVM's names, as kernels are compiled for it."""
    return dict(llvmlite.binding.get_host_cpu_features())


def compiles_for(feature: str) -> bool:
    """Return whether kernels may use a feature of the processor, as NUMBA_CPU_NAME and NUMBA_CPU_FEATURES leave it."""
    given = numba_config.CPU_FEATURES
    if given is not None:
        return f"+{feature}" in str(given).split(",")
    named = numba_config.CPU_NAME not in (None, "", "host")
    return not named and cpu_features().get(feature, False)
