"""Compiled kernels on disk: which folder holds them, and how a file proves to be whole before it is run.

All kernels share one stamp over all kernel sources, Numba's version and its switches, in a folder that only the user
can write: the files are machine code. To a kernel of another package, all sources of that package belong besides. Each
compiled kernel is one file: a digest, then what it is the digest of: a line of JSON, which says how the kernel is
called, and an object file. Its name says which kernel, and for which processor; nothing else is written, so that any
number of processes may add files at once. A file is only ever replaced, and as a whole; what has been read once is
checked and run, whatever happens to the file meanwhile. Reading takes neither Numba nor NumPy.
"""

# llvmlite comes without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import llvmlite

from pio.kernels import _settings
from pio.kernels._processor import target
from pio.system import HERE

SUFFIX: Final = ".kernel"
DIGEST: Final = hashlib.sha256().digest_size
KEEP_STAMPS: Final = 4  # compiled kernels of the latest versions; older folders are removed
_OWN: Final = __name__.partition(".")[0]

_log = logging.getLogger("pio.kernels")


class Name(NamedTuple):
    """A kernel by name: all that another process needs to find it.

    Attributes:
        module: Where it is defined.
        name: Its name there.
        dtype: Element type that it is made for; empty where it has none.
    """

    module: str
    name: str
    dtype: str = ""

    @property
    def full(self) -> str:
        """The name with the element type, as messages show it."""
        return f"{self.name}_{self.dtype}" if self.dtype else self.name


class CudaName(NamedTuple):
    """A kernel for GPUs by name, and what it is compiled for.

    Attributes:
        module: Where it is defined.
        name: Its name there.
        dtype: Element type that it is made for; empty where it has none.
        architecture: Such as ``sm_90a``.
    """

    module: str
    name: str
    dtype: str
    architecture: str


class Compiled(NamedTuple):
    """A kernel's machine code, and how it is called.

    Attributes:
        symbol: Name of the function that the object file defines. Of a parallel kernel it takes the address of the
            packed arguments, the part and how many parts there are; of a serial one the arguments, as C would.
        parameters: A letter each: ``q`` for int64, ``d`` for float64; without the part and the parts.
        result: Such a letter, ``?`` for bool, or empty.
        parts_per_thread: Of a parallel kernel; 0 of a serial one.
        code: The object file.
    """

    symbol: str
    parameters: str
    result: str
    parts_per_thread: int
    code: bytes


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
                _make_private(each)
            with suppress(OSError):  # another process may remove them too
                for old in sorted(root.iterdir(), key=os.path.getmtime)[:-KEEP_STAMPS]:
                    HERE.remove_folder(old)
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
    given = _settings.cache_folder() or os.environ.get("XDG_CACHE_HOME")
    return Path(os.path.abspath(given)) if given else HERE.cache_folder()


def _make_private(folder: Path) -> None:
    try:
        HERE.make_private_folder(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise


def _check_trusted(path: Path, descriptor: int | None = None) -> None:
    """Raise unless only this user or the system's own can have written what a file or folder holds, which is code."""
    reason = HERE.distrust(path, descriptor)
    if reason is not None:
        raise PermissionError(reason)


@cache
def is_writable(folder: Path) -> bool:
    """Return whether compiled kernels can be kept there; said once if not."""
    writable = HERE.may_write(folder)
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
    numba = find_spec("numba")
    if not sources or numba is None or numba.origin is None:  # as in a frozen program
        raise FileNotFoundError(f"there are no sources of kernels in {Path(__file__).parent}, or none of Numba")
    for source in [*sources, Path(numba.origin).with_name("_version.py")]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    digest.update(repr((llvmlite.__version__, sys.implementation.cache_tag, _settings.SWITCHES)).encode())
    return digest.hexdigest()[:24]


@cache
def package_stamp(package: str) -> str | None:
    """Return a digest of a package's sources, any of which kernels may call, and of their paths; None without files."""
    module = sys.modules.get(package)
    roots = [Path(root) for root in getattr(module, "__path__", ())]
    files = [path for root in roots for path in root.rglob("*.py")]
    if not roots and package != "__main__" and getattr(module, "__file__", None):
        files = [Path(str(getattr(module, "__file__", None)))]
    digest = hashlib.sha256()
    for source in sorted(file for file in files if file.is_file()):
        digest.update(os.fsencode(source) + b"\0" + source.read_bytes())
    return digest.hexdigest() if files else None


def _stamp(module: str) -> str | None:
    """Return the digest under which a module's kernels are kept, or None where they cannot be."""
    package = module.partition(".")[0]
    if package == _OWN:
        return source_stamp()
    own = package_stamp(package)
    return None if own is None else f"{source_stamp()} {own}"


def _file(name: Name) -> tuple[Path, bytes] | None:
    """The file of a kernel, and the key that its digest covers too; None where it cannot be kept."""
    folder = cache_folder()
    stamp = None if folder is None else _stamp(name.module)
    if folder is None or stamp is None:
        return None
    key = repr((tuple(name), stamp, target())).encode()
    return folder / f"{name.module}.{name.full}-{hashlib.sha256(key).hexdigest()[:16]}{SUFFIX}", key


def symbol_of(name: Name) -> str | None:
    """Return the name of a kernel's function in its object file, no other's; None where it cannot be kept."""
    found = _file(name)
    return None if found is None else f"pio_{name.full}_{hashlib.sha256(found[1]).hexdigest()[:16]}"


def can_hold(name: Name) -> bool:
    """Return whether the folder holds such a kernel or could."""
    return _file(name) is not None


def holds(name: Name) -> bool:
    """Return whether there is a file; whether it can be used shows when it is read."""
    found = _file(name)
    return found is not None and found[0].exists()


def read(name: Name) -> Compiled | None:
    """Return a kernel that the folder holds; None where it does not, it cannot be read, or it is damaged."""
    found = _file(name)
    content = None if found is None else read_item(*found)
    if content is None:
        return None
    head, _, code = content.partition(b"\n")
    symbol, parameters, result, parts_per_thread = json.loads(head)
    return Compiled(symbol, parameters, result, parts_per_thread, code)


def keep(name: Name, compiled: Compiled) -> None:
    """Keep a compiled kernel; a file that is there is replaced. Where that fails, it is said."""
    found = _file(name)
    if found is not None:
        keep_item(*found, json.dumps(compiled[:-1]).encode() + b"\n" + compiled.code)


def read_item(path: Path, key: bytes) -> bytes | None:
    """Return what a file holds behind its digest, which covers a key too; None where it cannot be used."""
    try:
        with open(path, "rb") as file:
            _check_trusted(path, file.fileno())
            stored = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        _say_unreadable(path.parent, error.strerror or str(error))
        return None
    digest, content = stored[:DIGEST], stored[DIGEST:]
    if digest != _digest(key, content):
        _log.warning("a damaged file of a compiled kernel is made anew: %s", path)
        return None
    return content


def keep_item(path: Path, key: bytes, content: bytes) -> None:
    """Write such a file, as a whole; one that is there is replaced. Where that fails, it is said."""
    if not is_writable(path.parent):
        return
    try:
        with HERE.replacing(path) as beside, open(beside, "xb", opener=_readable_by_all) as file:
            file.write(_digest(key, content) + content)
    except OSError as error:
        remedy = HERE.file_problem(path, error, writing=True) or "free some space there"
        _log.warning("a compiled kernel cannot be kept in %s: %s; %s", path.parent, error, remedy)


def _readable_by_all(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)


def _digest(key: bytes, content: bytes) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(content)
    return digest.digest()
