"""macOS on Apple silicon; written by the documentation, and tried without it alone."""

from __future__ import annotations

import sys

assert sys.platform != "win32"

import ctypes
import errno
import os
import resource
import time
from pathlib import Path
from typing import Any, Final

from pio.system.interface import Call
from pio.system.posix import Posix, program

_NAP_US: Final = 200
_CLOCK_MONOTONIC: Final = 6  # of its time.h
_EXTENDED, _FIRST_ENTRY = 0x100, 0  # ACL_TYPE_EXTENDED, ACL_FIRST_ENTRY
# By the names that sysctl has for what LLVM calls otherwise.
_FEATURES: Final = {
    "fullfp16": "FEAT_FP16",
    "dotprod": "FEAT_DotProd",
    "i8mm": "FEAT_I8MM",
    "bf16": "FEAT_BF16",
}


class MacOS(Posix):
    """macOS."""

    clock = Call("clock_gettime", (_CLOCK_MONOTONIC, "result"))
    core_limits = "slower cores are left out, for work is split evenly"
    packages = ("platformdirs", "psutil")
    thread_remedy = "raise the limit of processes of this user (ulimit -u)"
    memory_remedy = "close other programs"

    def __init__(self) -> None:
        if hasattr(program(), "os_sync_wait_on_address"):  # since 14.4
            self.sleep = Call("os_sync_wait_on_address", ("address", "value", 4, 0))
            self.wake = Call("os_sync_wake_by_address_all", ("address", 4, 0))
        else:
            self.sleep, self.wake = Call("usleep", (_NAP_US,)), None

    def cache_folder(self) -> Path:
        """Return ``Library/Caches``."""
        import platformdirs

        return platformdirs.user_cache_path()

    def distrust(self, path: Path, descriptor: int | None) -> str | None:
        """Look at the access list too, by which others may write what the mode leaves to the owner."""
        reason = super().distrust(path, descriptor)
        if reason is None and _has_access_list(path, descriptor):
            return f"{path} has an access list, which may let others write it; chmod -N {path}"
        return reason

    def name(self) -> str:
        """Return the version that its settings show."""
        import platform

        return f"macOS {platform.mac_ver()[0]}"

    def core_count(self) -> int:
        """Return the fast cores: work is split evenly, so that a slow one would hold up the others."""
        return _number("hw.perflevel0.logicalcpu") or os.cpu_count() or 1

    def available_memory(self) -> int | None:
        """Return what is free or can be freed at once."""
        import psutil

        return int(psutil.virtual_memory().available)

    def processor_name(self) -> str:
        """Return the chip's name."""
        return _text("machdep.cpu.brand_string") or os.uname().machine

    def processor_features(self) -> frozenset[str]:
        """Return what sysctl tells of."""
        return frozenset(name for name, found in _FEATURES.items() if _number(f"hw.optional.arm.{found}"))

    def huge_pages(self) -> tuple[str, str]:
        """Say that there are none."""
        return "none: pages of 16 KiB serve", ""

    def seconds_since_start(self) -> float | None:
        """Return the time of day less that of the process's start."""
        import psutil

        return time.time() - psutil.Process().create_time()

    def peak_memory(self) -> int | None:
        """Return the largest resident size, which this system counts in bytes."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _number(name: str) -> int:
    """What sysctl says, 0 where it knows no such name."""
    value = ctypes.c_int64(0)
    return value.value if _sysctl(name, value) else 0


def _text(name: str) -> str:
    value = ctypes.create_string_buffer(256)
    return value.value.decode("utf-8", "replace") if _sysctl(name, value) else ""


def _sysctl(name: str, into: Any) -> bool:
    """Have sysctl write what it knows by a name; False where it knows nothing."""
    ask, size = program().sysctlbyname, ctypes.c_size_t(ctypes.sizeof(into))
    ask.argtypes = (ctypes.c_char_p, *(ctypes.c_void_p,) * 3, ctypes.c_size_t)
    return ask(name.encode(), ctypes.byref(into), ctypes.byref(size), None, 0) == 0


def _has_access_list(path: Path, descriptor: int | None) -> bool:
    """Return whether a list stands beside the mode, with anything in it."""
    ask = program().acl_get_file if descriptor is None else program().acl_get_fd_np
    ask.argtypes = (ctypes.c_char_p if descriptor is None else ctypes.c_int, ctypes.c_int)
    ask.restype = ctypes.c_void_p
    entry, free = program().acl_get_entry, program().acl_free
    entry.argtypes, free.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p), (ctypes.c_void_p,)
    ctypes.set_errno(0)
    found = ask(os.fsencode(path) if descriptor is None else descriptor, _EXTENDED)
    if not found:
        number = ctypes.get_errno()
        if number in (0, errno.ENOENT, errno.ENOTSUP):  # there is none, or there are none on this disk
            return False
        raise OSError(number, os.strerror(number), str(path))
    try:
        return entry(found, _FIRST_ENTRY, ctypes.byref(ctypes.c_void_p())) == 0
    finally:
        free(found)
