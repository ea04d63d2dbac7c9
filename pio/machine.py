"""What this machine gives the process: cores and memory, with the limits that the system sets it."""

from __future__ import annotations

from pio.system import HERE
from pio.threads import green_threads


def cpu_count() -> int:
    """Return how many cores this process may use: its affinity, cut by quotas of the groups that it is in."""
    return HERE.core_count()


def thread_count() -> int:
    """Return over how many threads to split work: as many as cores, or one where threads are no threads."""
    return 1 if green_threads() else cpu_count()


def available_memory() -> int | None:
    """Return the bytes that can still be taken without swapping, or None where the system does not say."""
    return HERE.available_memory()


def cpu_name() -> str:
    """Return the processor's name."""
    return HERE.processor_name()
