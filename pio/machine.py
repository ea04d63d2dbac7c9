"""What this machine gives the process: cores and memory, with the limits of its control group."""

from __future__ import annotations

import _thread
import os
from pathlib import Path
from types import BuiltinFunctionType

_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Return how many cores this process may use: its affinity, cut by a control group's quota."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        affine = min(affine, max(1, int(quota[0]) // int(quota[1])))
    return affine


def green_threads() -> bool:
    """Return whether coroutines of one thread stand for threads in this process, as ``gevent.monkey`` has it."""
    return not isinstance(_thread.start_new_thread, BuiltinFunctionType)


def thread_count() -> int:
    """Return over how many threads to split work: as many as cores, or one where threads are no threads."""
    return 1 if green_threads() else cpu_count()


def available_memory() -> int | None:
    """Return the bytes that can still be taken without swapping, or None where the system does not say."""
    found = [value for value in (_system_available(), _cgroup_available()) if value is not None]
    return min(found) if found else None


def _system_available() -> int | None:
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _cgroup_available() -> int | None:
    limit, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if not limit.isdigit() or not used.isdigit():
        return None
    # files that were read count as used, and are dropped for whoever needs memory
    fields = [line.split() for line in _read(_CGROUP / "memory.stat").splitlines()]
    files = sum(int(value) for name, value in fields if name in ("active_file", "inactive_file"))
    return max(0, int(limit) - int(used) + files)


def cpu_name() -> str:
    """Return the processor's name."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, rest = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return rest.strip()
    return os.uname().machine


def _read(path: Path) -> str:
    """The text of a small system file, empty where this system has none."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
