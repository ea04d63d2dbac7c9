"""What Linux and macOS share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pio.system.interface import Call, Machine, System

if TYPE_CHECKING:
    import mmap

assert sys.platform != "win32"

_AT_ONCE: Final = 512  # places that one call reads into; POSIX lets a system take as few as 16, and these take 1024
_MACHINES: dict[str, Machine] = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class Posix(System):
    """A system that follows POSIX."""

    # the kernel's, which may be one of 64 bits where the interpreter is none
    machine: Machine = _MACHINES.get(os.uname().machine, "other") if sys.maxsize > 1 << 32 else "other"
    give_way = Call("sched_yield")
    clock_units = (1_000_000_000, 1)  # a struct timespec
    read_flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    permission_remedy = "give read permission with chmod or chown"
    child_options: ClassVar[Mapping[str, Any]] = {
        "process_group": 0
    }  # Ctrl-C on a terminal is for this process to handle
    ending_signals = (signal.SIGHUP, signal.SIGTERM)  # the terminal is gone; a service manager, or kill, asks for it
    end_of_input = "Ctrl-D"

    def private_memory(self, nbytes: int) -> mmap.mmap:
        """Return memory that a forked child has for itself."""
        import mmap

        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def protect(self, address: int, nbytes: int, *, run: bool) -> None:
        """Call ``mprotect``."""
        import ctypes
        import mmap

        if _mprotect()(address, nbytes, mmap.PROT_READ | (mmap.PROT_EXEC if run else 0)) != 0:
            raise PermissionError(
                ctypes.get_errno(),
                "the system lets no memory of this process be run that was written to, and kernels are made so; take "
                "MemoryDenyWriteExecute= out of its systemd unit, or allow it execmem where SELinux is in force",
            )

    def function(self, name: str) -> int | None:
        """Look into the program and the libraries that it was started with."""
        import ctypes

        found = getattr(program(), name, None)
        return None if found is None else ctypes.cast(found, ctypes.c_void_p).value

    def prefer_huge_pages(self, mapping: mmap.mmap) -> None:
        """Advise so; a kernel built without huge pages refuses the advice."""
        import mmap

        advice = getattr(mmap, "MADV_HUGEPAGE", None)
        if advice is not None:
            try:
                mapping.madvise(advice)
            except OSError:
                return

    def drop_pages(self, mapping: mmap.mmap, first: int, nbytes: int) -> None:
        """Advise so; macOS takes it for a hint."""
        import mmap

        mapping.madvise(mmap.MADV_DONTNEED, first, nbytes)

    def read_at(self, descriptor: int, target: memoryview, position: int) -> int:
        """Read without a position of the descriptor's own, which threads would share."""
        return os.preadv(descriptor, [target], position)

    def read_scattered(self, descriptor: int, targets: Sequence[memoryview], position: int) -> int:
        """Read many places in one call; what a call leaves, as a signal or the end of the file may have it, singly."""
        done = 0
        for first in range(0, len(targets), _AT_ONCE):
            some = targets[first : first + _AT_ONCE]
            count, wanted = os.preadv(descriptor, some, position + done), sum(map(len, some))
            done += count
            if count < wanted:
                left = super().read_scattered(descriptor, _behind(some, count), position + done)
                done += left
                if count + left < wanted:
                    break
        return done

    def distrust(self, path: Path, descriptor: int | None) -> str | None:
        """Look at the owner, and at who may write."""
        status = os.stat(path if descriptor is None else descriptor)
        if status.st_uid not in (os.getuid(), 0):
            return f"{path} belongs to user id {status.st_uid}; remove it, and it is made anew"
        return f"{path} can be written by others; chmod go-w {path}" if status.st_mode & 0o022 else None

    def make_private_folder(self, folder: Path) -> None:
        """Make it with a mode."""
        folder.mkdir(mode=0o700)

    def move_folder(self, source: Path, target: Path) -> None:
        """Rename: over an empty folder, but over no other."""
        os.rename(source, target)

    def sync_folder(self, folder: str | os.PathLike[str]) -> None:
        """Sync it as a file."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock_folder(self, folder: Path, *, needed: bool = False) -> int | None:
        """Lock the folder itself; the lock is its descriptor."""
        import fcntl

        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            mine = os.fstat(descriptor).st_uid == os.geteuid()
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = mine and os.path.samestat(os.fstat(descriptor), os.stat(folder, follow_symlinks=False))
        except (BlockingIOError, FileNotFoundError):  # somebody writes it, or has renamed or removed it meanwhile
            same = False
        except OSError:
            same = not needed
        if same:
            return descriptor
        os.close(descriptor)
        return None

    def unlock_folder(self, folder: Path, lock: int) -> None:
        """Close the descriptor."""
        os.close(lock)

    def at_fork(self, before: Callable[[], object], after: Callable[[], object]) -> None:
        """Register them with Python."""
        os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)

    def has_input(self, descriptor: int, seconds: float) -> bool:
        """Ask for that."""
        import select

        return bool(select.select([descriptor], [], [], seconds)[0])

    def quote(self, text: str) -> str:
        """Quote for sh."""
        import shlex

        return shlex.quote(text)


def _behind(targets: Sequence[memoryview], count: int) -> list[memoryview]:
    """Return what is left of some places behind so many bytes."""
    left: list[memoryview] = []
    for target in targets:
        left.append(target[min(count, len(target)) :])
        count = max(0, count - len(target))
    return left


@cache
def program() -> Any:
    """Return the program, with the libraries that it was started with."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


@cache
def _mprotect() -> Any:
    import ctypes

    function = program().mprotect
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
