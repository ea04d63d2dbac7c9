"""What the system knows of this process: when it began, and how much memory it had at most."""

from __future__ import annotations

import os
import time
from pathlib import Path


def seconds_since_start() -> float | None:
    """Return the seconds since the system started this process, or None where it does not say."""
    try:
        fields = Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def peak_memory() -> int | None:
    """Return the most bytes that this process ever had in memory, mapped files included, or None where unknown."""
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None
