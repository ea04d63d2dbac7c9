"""Compiled kernels on disk: which folder holds them, and how a file proves to be whole before it is run.

Numba's own cache stamps one source file, so a changed callee in another file would go unnoticed, and trusts what it
reads. Here every kernel shares one stamp over all kernel sources, Numba's version and its debugging switches, in a
folder that only the user can write (the files are pickles, and code). To a kernel of another package, all sources of
that package belong besides. Each compiled kernel is one file: a digest, and what it is the digest of. Its name says
which kernel, for which types and which processor; nothing else is written, so that any number of processes may add
files at once. A file is only ever replaced, and as a whole.
"""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportPrivateUsage=false
from __future__ import annotations

import hashlib
import logging
import os
import pickle
import secrets
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import llvmlite
import numba
from numba.core import config as numba_config
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

LOADED: Final = "pio:loaded"  # the event after each kernel that the folder held
SUFFIX: Final = ".nbc"
DIGEST: Final = hashlib.sha256().digest_size
_OWN: Final = __name__.partition(".")[0]
KEEP_STAMPS: Final = 4  # compiled kernels of the latest versions; older folders are removed

_log = logging.getLogger("pio.kernels")


@cache
def cache_folder() -> Path | None:
    """Return the folder of compiled kernels, or None where none can be used (said once).

    It is made private to the user. One that is there may be read-only, as in a container's image.
    """
    try:
        root = _base_folder() / "pio" / "kernels"
        folder = root / source_stamp()
        if not folder.is_dir():
            root.parent.parent.mkdir(parents=True, exist_ok=True)
            for each in (root.parent, root, folder):
                each.mkdir(exist_ok=True, mode=0o700)
            for old in sorted(root.iterdir(), key=os.path.getmtime)[:-KEEP_STAMPS]:
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


def _base_folder() -> Path:
    """The user's folder for what can be made again; the same one wherever the process changes to."""
    given = numba_config.CACHE_DIR or os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(os.path.abspath(given))
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise FileNotFoundError("this user has no home folder")
    return Path(home) / ".cache"


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
def _say_unreadable(folder: Path, reason: str | None) -> None:
    _log.warning("compiled kernels in %s cannot be read and are compiled in this process: %s", folder, reason)


@cache
def source_stamp() -> str:
    """Return a digest of everything that decides the machine code, except the processor, which a file's name tells."""
    digest = hashlib.sha256()
    sources = sorted(Path(__file__).parent.glob("*.py"))
    if not sources:  # as in a frozen program: nothing would tell one version from the next
        raise FileNotFoundError(f"there are no sources of kernels in {Path(__file__).parent}")
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    switches = [getattr(numba_config, name) for name in ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE")]
    versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag
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


def kernel_cache(fn: Any) -> KernelCache | None:
    """Return the files of a kernel, or None where no folder can be used."""
    return None if cache_folder() is None or _stamp(fn) is None else KernelCache(fn)


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


class KernelCache(FunctionCache):
    """The files of one kernel, as Numba asks for them and gives them."""

    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel compiled for a signature, or None where it is to be compiled."""
        target_context.refresh()
        content = self._read(sig, target_context.codegen())
        if content is None:
            return None
        found = CompileResult._rebuild(target_context, *pickle.loads(content))
        event.broadcast(event.Event(LOADED, event.EventStatus.END, {"name": found.fndesc.qualname}))
        return found

    def holds(self, sig: Any, target: Any) -> bool:
        """Return whether there is a file; whether it can be used shows when it is read."""
        return os.path.exists(self._file(sig, target.target_context.codegen())[0])

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel; a file that is there is replaced. Where that fails, it is said."""
        if not is_writable(Path(self.cache_path)) or not self._impl.check_cachable(data):
            return
        path, key = self._file(sig, data.codegen)
        content = dumps(data._reduce())
        beside = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            try:
                with open(beside, "xb") as file:
                    file.write(_digest(key, content) + content)
                os.replace(beside, path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        except OSError as error:
            _log.warning("a compiled kernel cannot be kept in %s: %s; free some space there", self.cache_path, error)

    def _file(self, sig: Any, codegen: Any) -> tuple[Path, bytes]:
        """The file for a signature and a processor, and the key that its digest covers too."""
        key = repr((self._index_key(sig, codegen), self._impl.locator.get_source_stamp())).encode()
        name = f"{self._impl.filename_base}.{hashlib.sha256(key).hexdigest()[:16]}{SUFFIX}"
        return Path(self.cache_path) / name, key

    def _read(self, sig: Any, codegen: Any) -> bytes | None:
        """What a file holds; None where there is none, it cannot be read, or it is damaged."""
        path, key = self._file(sig, codegen)
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _say_unreadable(path.parent, error.strerror)
            return None
        digest, content = stored[:DIGEST], stored[DIGEST:]
        if digest != _digest(key, content):
            _log.warning("a damaged file of a compiled kernel is made anew: %s", path)
            return None
        return content


def _digest(key: bytes, content: bytes) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(content)
    return digest.digest()
