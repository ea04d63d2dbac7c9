"""macOS on Apple silicon; written by the documentation, and not tried."""

from __future__ import annotations

import sys

assert sys.platform != "win32"

import ctypes
import os
import resource
import time
from pathlib import Path
from typing import Final

from pio.system.interface import Call
from pio.system.posix import Posix, program

_NAP_US: Final = 200
_CLOCK_MONOTONIC: Final = 6  # of its time.h
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
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    failed = program().sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if failed else value.value


def _text(name: str) -> str:
    value, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    failed = program().sysctlbyname(name.encode(), value, ctypes.byref(size), None, 0)
    return "" if failed else value.value.decode("utf-8", "replace")
