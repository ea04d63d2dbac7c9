"""What this machine gives the process: cores and memory, with the limits of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

from pio.control_group import ROOT, cpu_quota, free_memory, read
from pio.threads import green_threads


def cpu_count(root: Path = ROOT) -> int:
    """Return how many cores this process may use: its affinity, cut by its control groups' quotas.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return affine if quota is None else min(affine, max(1, int(quota)))


def thread_count() -> int:
    """Return over how many threads to split work: as many as cores, or one where threads are no threads."""
    return 1 if green_threads() else cpu_count()


def available_memory(root: Path = ROOT) -> int | None:
    """Return the bytes that can still be taken without swapping, or None where the system does not say.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = [value for value in (_system_available(root), free_memory(root)) if value is not None]
    return min(found, default=None)


def _system_available(root: Path) -> int | None:
    for line in read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and rest.split()[:1]:
            return int(rest.split()[0]) * 1024
    return None


def cpu_name() -> str:
    """Return the processor's name."""
    for line in read(ROOT / "proc/cpuinfo").splitlines():
        name, _, rest = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return rest.strip()
    return os.uname().machine
