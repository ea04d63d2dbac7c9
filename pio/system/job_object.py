"""Job objects: how much processor time and memory Windows grants this process and those that it shares a job with.

Services, containers and continuous integration put processes into jobs. Where jobs are nested, Windows tells a process
of the innermost one alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int64, c_size_t, c_uint32, c_uint64
from typing import Final, TypeAlias

Query: TypeAlias = Callable[[int, ctypes.Structure], bool]
"""Fills a structure with what is known of a job by a number; False where there is no job, or no such thing."""

_EXTENDED_LIMITS, _CPU_RATE, _MEMORY_USAGE = 9, 15, 28
_OF_PROCESS, _OF_JOB = 0x100, 0x200  # flags of limits
_ENABLED, _HARD_CAP, _MIN_MAX = 0x1, 0x4, 0x10  # flags of rates
_WHOLE: Final = 10_000  # a rate that is all cores' time


class _Limits(ctypes.Structure):
    _fields_ = (
        ("process_time", c_int64),
        ("job_time", c_int64),
        ("flags", c_uint32),
        ("least_working_set", c_size_t),
        ("most_working_set", c_size_t),
        ("processes", c_uint32),
        ("affinity", c_size_t),
        ("priority", c_uint32),
        ("scheduling", c_uint32),
        ("counters", c_uint64 * 6),
        ("process_memory", c_size_t),
        ("job_memory", c_size_t),
        ("process_peak", c_size_t),
        ("job_peak", c_size_t),
    )


class _Rate(ctypes.Structure):
    _fields_ = (("flags", c_uint32), ("rate", c_uint32))


class _Usage(ctypes.Structure):
    _fields_ = (("job_memory", c_uint64), ("job_peak", c_uint64))


def cpu_quota(query: Query, cores: int) -> float | None:
    """Return how many cores' time this process may use, or None where nothing limits it.

    Args:
        query: Asks the system.
        cores: How many the machine has.
    """
    found = _Rate()
    if not query(_CPU_RATE, found) or not found.flags & _ENABLED:
        return None
    if not found.flags & (_MIN_MAX | _HARD_CAP):
        return None  # it is a share of what others want
    rate = found.rate >> 16 if found.flags & _MIN_MAX else found.rate
    # whoever set it has rounded it down: two cores of twelve are 1666, which would make them fewer than two
    return min(rate + 1, _WHOLE) / _WHOLE * cores


def free_memory(query: Query, committed: int) -> int | None:
    """Return the bytes that this process may still take, or None where nothing limits them.

    Args:
        query: Asks the system.
        committed: Bytes that this process has taken.
    """
    limits, usage = _Limits(), _Usage()
    if not query(_EXTENDED_LIMITS, limits):
        return None
    free: list[int] = []
    if limits.flags & _OF_PROCESS and limits.process_memory:
        free.append(limits.process_memory - committed)
    if limits.flags & _OF_JOB and limits.job_memory:
        taken = usage.job_memory if query(_MEMORY_USAGE, usage) else committed
        free.append(limits.job_memory - max(taken, committed))
    return max(0, min(free)) if free else None
