"""Linux."""

from __future__ import annotations

import sys

assert sys.platform == "linux"

import os
import time
from functools import cache
from pathlib import Path
from typing import Final

from pio.system.control_group import ROOT, cpu_quota, free_memory, read
from pio.system.interface import Call, Machine
from pio.system.posix import Posix, program

_FUTEX: Final[dict[Machine, int]] = {"x86_64": 202, "aarch64": 98}  # the number of the system call
_WAIT_PRIVATE, _WAKE_PRIVATE, _EVERYBODY = 128, 129, 1 << 30
_NAP_US: Final = 200
# Registers of AMX are kept for those who ask: a system call, what is asked, and of which state; asm/prctl.h.
_ARCH_PRCTL, _REQUEST_STATE, _TILES = 158, 0x1023, 18
# Bits by which the system tells what an ARM processor can do: asm/hwcap.h has their names.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_HWCAP: Final = {"fullfp16": 1 << 10, "dotprod": 1 << 20}  # HWCAP_ASIMDHP, HWCAP_ASIMDDP
_HWCAP2: Final = {"i8mm": 1 << 13, "bf16": 1 << 14}
# ARM's own cores that servers have, by the part that cpuinfo shows; it shows no names there.
_ARM: Final = "0x41"
_PARTS: Final = {"0xd0c": "Neoverse N1", "0xd40": "Neoverse V1", "0xd49": "Neoverse N2", "0xd4f": "Neoverse V2"}


class Linux(Posix):
    """Linux, in a container or not.

    Attributes:
        root: Where ``proc`` and ``sys`` are.
    """

    clock = Call("clock_gettime", (time.CLOCK_MONOTONIC, "result"))
    core_limits = "the process's affinity or control group gives no more"
    thread_remedy = "raise the limit of threads of this user (ulimit -u) or container"
    memory_remedy = "ulimit -v, a control group"

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        number = _FUTEX.get(self.machine)
        if number is None:
            self.sleep, self.wake = Call("usleep", (_NAP_US,)), None
        else:
            self.sleep = Call("syscall", (number, "address", _WAIT_PRIVATE, "value", 0, 0, 0))
            self.wake = Call("syscall", (number, "address", _WAKE_PRIVATE, _EVERYBODY, 0, 0, 0))
        self.places_objects = self.machine == "x86_64"

    def cache_folder(self) -> Path:
        """Return the folder that the XDG Base Directory Specification names."""
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise FileNotFoundError("this user has no home folder")
        return Path(home, ".cache")

    def name(self) -> str:
        """Return the kernel's version."""
        return f"Linux {os.uname().release}"

    def core_count(self) -> int:
        """Return the cores of the process's affinity, cut by its control groups' quotas."""
        affine, quota = len(os.sched_getaffinity(0)), cpu_quota(self.root)
        return affine if quota is None else min(affine, max(1, int(quota)))

    def available_memory(self) -> int | None:
        """Return what the system has, cut by the control groups' limits."""
        found = [value for value in (self._available(), free_memory(self.root)) if value is not None]
        return min(found, default=None)

    def _available(self) -> int | None:
        for line in read(self.root / "proc/meminfo").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable" and rest.split()[:1]:
                return int(rest.split()[0]) * 1024
        return None

    def processor_name(self) -> str:
        """Return its name as the system shows it, or who made it and which it is, or the kind of machine."""
        fields = [line.partition(":") for line in read(self.root / "proc/cpuinfo").splitlines()]
        said = {name.strip(): text.strip() for name, _, text in reversed(fields)}  # of the first core
        if name := said.get("model name") or said.get("Model"):
            return name
        maker, part = said.get("CPU implementer"), said.get("CPU part")
        if maker is None or part is None:
            return os.uname().machine
        known = _PARTS.get(part) if maker == _ARM else None
        return known or f"ARM implementer {maker}, part {part}"

    def processor_features(self) -> frozenset[str]:
        """Return what LLVM does not ask for: of ARM processors what is newer than 2016."""
        return _arm_features() if self.machine == "aarch64" else frozenset()

    def allow_matrix_tiles(self) -> bool:
        """Ask the system, which also refuses where a thread handles signals on a stack too small for the registers."""
        if self.machine != "x86_64":
            return False
        try:
            return program().syscall(_ARCH_PRCTL, _REQUEST_STATE, _TILES) == 0
        except AttributeError:  # a C library without that function
            return False

    def huge_pages(self) -> tuple[str, str]:
        """Read what is chosen."""
        file = self.root / "sys/kernel/mm/transparent_hugepage/enabled"
        chosen = read(file).partition("[")[2].partition("]")[0]
        if chosen == "never":
            return chosen, f"caches and buffers are a little faster with: echo madvise > {file}"
        return chosen or "none: this kernel was built without", ""

    def seconds_since_start(self) -> float | None:
        """Return the clock since the system's boot less that of the process's start."""
        fields = read(self.root / "proc/self/stat").rpartition(")")[2].split()
        if len(fields) < 20:
            return None
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started

    def peak_memory(self) -> int | None:
        """Return the high-water mark."""
        lines = read(self.root / "proc/self/status").splitlines()
        found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(found[0]) * 1024 if found else None


@cache
def _arm_features() -> frozenset[str]:
    import ctypes

    ask = program().getauxval
    ask.restype, ask.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    first, second = ask(_AT_HWCAP), ask(_AT_HWCAP2)
    return frozenset(
        [name for name, bit in _HWCAP.items() if first & bit] + [name for name, bit in _HWCAP2.items() if second & bit]
    )
