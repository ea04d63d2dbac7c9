"""The only place with Numba options: how kernels are compiled, specialised by element type, and cached on disk.

Numba's own on-disk cache stamps one source file, so a changed callee in another file would go unnoticed. Here every
kernel shares one stamp over all kernel sources, Numba's version and its debugging switches, in a folder that only the
user can read (the files are pickles). To a kernel of another package, all sources of that package belong besides.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false
# pyright: reportUnknownLambdaType=false, reportIncompatibleMethodOverride=false, reportPrivateUsage=false
from __future__ import annotations

import hashlib
import inspect
import logging
import os
import shutil
import sys
import types
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import llvmlite
import llvmlite.binding
import numba
from numba import float64, int64, void
from numba.core import config as numba_config
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.ccallback import CFunc

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# "fast" would assume that no value is NaN or infinite, and a masked softmax works with -inf.
FASTMATH: Final = {"reassoc", "contract", "nsz", "arcp"}
# Kernels that promise the same bits however work is split keep the order of sums that is written down.
CONTRACT: Final = {"contract", "nsz"}

BOUNDSCHECK: Final = bool(numba_config.BOUNDSCHECK)
OPTIONS: Final = {"nogil": True, "error_model": "numpy"}  # threads run at once; division by zero is not an exception

COMPILE: Final = "numba:compile"  # Numba's event around each compilation that its cache does not spare
LOADED: Final = "pio:loaded"  # our own, after each kernel that the cache folder held
ELSEWHERE: Final = "pio:elsewhere"  # our own, around each kernel that another process compiles for this one
LEFT: Final = "pio:left"  # our own, with a number: see announce_left

_OWN: Final = __name__.partition(".")[0]
KEEP_STAMPS: Final = 4  # compiled kernels of the latest versions; older folders are removed

_log = logging.getLogger("pio.kernels")


def kernel(fn: Callable[..., Any] | None = None, *, fastmath: set[str] | None = None) -> Any:
    """Compile a serial kernel: releases the GIL, no Python errors, sums in the written order unless told otherwise."""
    return _compile(fn, fastmath=fastmath or CONTRACT)


def _compile(fn: Any, **options: Any) -> Any:
    if fn is None:
        return lambda f: _compile(f, **options)
    dispatcher = numba.njit(**OPTIONS, **options)(fn)
    if not numba_config.DISABLE_JIT:
        found = kernel_cache(fn)
        if found is not None:
            dispatcher._cache = found
    return dispatcher


def callback(fn: Any) -> CFunc:
    """Return ``fn(int64, int64, int64)`` as a C function that takes no GIL, yet to be compiled."""
    made = CFunc(fn, ((int64,) * 3, void), {}, {**OPTIONS, "fastmath": CONTRACT})
    found = kernel_cache(fn)
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
    if not isinstance(made._cache, _KernelCache):
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


@cache
def cache_folder() -> Path | None:
    """Return the folder of compiled kernels, or None where none can be used (said once).

    It is made private to the user. One that is there may be read-only, as in a container's image.
    """
    base = numba_config.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    root = Path(base) / "pio" / "kernels"
    folder = root / source_stamp()
    try:
        if not folder.is_dir():
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
            for old in sorted(root.iterdir(), key=lambda f: f.stat().st_mtime)[:-KEEP_STAMPS]:
                shutil.rmtree(old, ignore_errors=True)
        for each in (root, folder):
            _check_trusted(each)
    except OSError as error:
        _log.warning(
            "kernels are compiled anew in every process, which costs about 10 s at each start: %s. "
            "Set XDG_CACHE_HOME or NUMBA_CACHE_DIR to a folder of your own.",
            error,
        )
        return None
    return folder


def _check_trusted(folder: Path) -> None:
    """Raise unless only this user or root can have written what the folder holds, which is code."""
    status = folder.stat()
    if status.st_uid not in (os.getuid(), 0):
        raise PermissionError(f"{folder} belongs to user id {status.st_uid}")
    if status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others; chmod go-w {folder}")


@cache
def is_writable(folder: Path) -> bool:
    """Return whether compiled kernels can be kept there; said once if not."""
    writable = os.access(folder, os.W_OK)
    if not writable:
        _log.warning("%s lacks a kernel and cannot be written; it is compiled anew at each start", folder)
    return writable


@cache
def source_stamp() -> str:
    """Return a digest of everything that decides the machine code, except the processor (Numba's own key has it)."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    switches = [getattr(numba_config, name) for name in ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE")]
    versions = numba.__version__, llvmlite.__version__
    digest.update(repr((versions, switches)).encode())
    return digest.hexdigest()[:24]


@cache
def package_stamp(package: str) -> str | None:
    """Return a digest of a package's sources, of which its kernels may call any; None where they are in no files."""
    module = sys.modules.get(package)
    roots = [Path(root) for root in getattr(module, "__path__", ())]
    files = [path for root in roots for path in root.rglob("*.py")]
    if not roots and package != "__main__" and getattr(module, "__file__", None):
        files = [Path(str(getattr(module, "__file__", None)))]
    digest = hashlib.sha256()
    for source in sorted(file for file in files if file.is_file()):
        digest.update(str(source).encode() + b"\0" + source.read_bytes())
    return digest.hexdigest() if files else None


def _stamp(fn: Any) -> str | None:
    """Return the digest under which a kernel is kept, or None where it cannot be."""
    package = fn.__module__.partition(".")[0]
    if package == _OWN:
        return source_stamp()
    own = package_stamp(package)
    return None if own is None else f"{source_stamp()} {own}"


class _Locator(_CacheLocator):
    """Tell Numba where compiled kernels lie and what makes them stale."""

    def __init__(self, py_func: Any) -> None:
        self._stamp = _stamp(py_func)
        self._line = str(py_func.__code__.co_firstlineno)
        self._py_file = py_func.__code__.co_filename

    def get_cache_path(self) -> str:
        folder = cache_folder()
        if folder is None:
            raise OSError("no cache folder")
        return str(folder)

    def get_source_stamp(self) -> str | None:
        return self._stamp

    def get_disambiguator(self) -> str:
        return self._line


class _CacheImpl(CompileResultCacheImpl):
    def __init__(self, py_func: Any) -> None:
        # the base class would ask the host program's locators first; these files are ours alone
        self._lineno = py_func.__code__.co_firstlineno
        self._locator = _Locator(py_func)
        self._filename_base = self.get_filename_base(f"{py_func.__module__}.{py_func.__qualname__}", "")


def kernel_cache(fn: Any) -> FunctionCache | None:
    """Return the on-disk cache for a kernel, or None where no folder can be used."""
    return None if cache_folder() is None or _stamp(fn) is None else _KernelCache(fn)


class _KernelCache(FunctionCache):
    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:  # whatever a damaged pickle raises
            index = Path(self._cache_file._index_path)
            _log.warning("a damaged file of compiled kernels is made anew: %s: %s", index, error)
            index.unlink(missing_ok=True)
            return None
        if found is not None:
            announce(LOADED, event.EventStatus.END, found.fndesc.qualname)
        return found

    def holds(self, sig: Any, target: Any) -> bool:
        """Return whether the folder has an entry; whether it can be read shows when it is."""
        try:
            return self._index_key(sig, target.target_context.codegen()) in self._cache_file._load_index()
        except Exception:  # whatever a damaged pickle raises
            return False

    def save_overload(self, sig: Any, data: Any) -> None:
        if not is_writable(Path(self.cache_path)):
            return
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _log.warning("a compiled kernel cannot be kept in %s: %s; free some space there", self.cache_path, error)


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
    own = isinstance(getattr(made, "_cache", None), _KernelCache) or made.py_func.__module__.startswith("pio.kernels")
    return made.py_func.__name__ if own else None


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
