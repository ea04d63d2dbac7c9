"""What Windows says of this machine and this process."""

from __future__ import annotations

import sys

assert sys.platform == "win32"

import ctypes
import time
from ctypes import c_int, c_size_t, c_uint32, c_uint64, c_void_p, wintypes
from typing import Any, Final

_ALL_GROUPS: Final = 0xFFFF
_SPANS_GROUPS: Final = 20348  # the build from which on a process may use the processors of every group of 64
_TICK: Final = 1e-7  # seconds, of a FILETIME
_UNIX: Final = 11_644_473_600  # seconds from 1601, where FILETIMEs begin, to 1970

_system = ctypes.WinDLL("kernel32", use_last_error=True)
_system.GetCurrentProcess.restype = wintypes.HANDLE
_system.GetActiveProcessorGroupCount.restype = wintypes.WORD
_system.GetActiveProcessorCount.argtypes, _system.GetActiveProcessorCount.restype = (wintypes.WORD,), wintypes.DWORD
_system.GetProcessAffinityMask.argtypes = (wintypes.HANDLE, c_void_p, c_void_p)
_system.GlobalMemoryStatusEx.argtypes = (c_void_p,)
_system.K32GetProcessMemoryInfo.argtypes = (wintypes.HANDLE, c_void_p, wintypes.DWORD)
_system.GetProcessTimes.argtypes = (wintypes.HANDLE, *(c_void_p,) * 4)
_system.QueryInformationJobObject.argtypes = (wintypes.HANDLE, c_int, c_void_p, wintypes.DWORD, c_void_p)
_me: Any = wintypes.HANDLE(_system.GetCurrentProcess())


class _MemoryStatus(ctypes.Structure):
    _fields_ = (
        ("size", c_uint32),
        ("load", c_uint32),
        ("all_physical", c_uint64),
        ("physical", c_uint64),
        ("all_commit", c_uint64),
        ("commit", c_uint64),
        ("all_virtual", c_uint64),
        ("virtual", c_uint64),
        ("extended", c_uint64),
    )


class _ProcessMemory(ctypes.Structure):
    _fields_ = (
        ("size", c_uint32),
        ("faults", c_uint32),
        ("peak_working_set", c_size_t),
        ("working_set", c_size_t),
        ("pools", c_size_t * 4),
        ("pagefile", c_size_t),
        ("peak_pagefile", c_size_t),
    )


def active_cores() -> int:
    """Return how many cores the machine has in use, of all groups."""
    return _system.GetActiveProcessorCount(_ALL_GROUPS) or 1


def usable_cores() -> int:
    """Return how many cores the threads of this process are given."""
    mine, all_of_group = c_size_t(), c_size_t()
    _system.GetProcessAffinityMask(_me, ctypes.byref(mine), ctypes.byref(all_of_group))
    groups = _system.GetActiveProcessorGroupCount()
    return count_cores(mine.value, all_of_group.value, groups, active_cores(), sys.getwindowsversion().build)


def count_cores(mine: int, all_of_group: int, groups: int, active: int, build: int) -> int:
    """Return how many cores threads are given.

    Args:
        mine: The process's affinity, a bit for each core of its group; 0 where it has threads in several.
        all_of_group: The bits of that group's cores.
        groups: How many groups the machine has.
        active: How many cores they have together.
        build: Windows' number.
    """
    if not mine or (mine == all_of_group and groups > 1 and build >= _SPANS_GROUPS):
        return active
    return mine.bit_count()


def available_memory() -> int:
    """Return the bytes of memory that are free or can be freed at once, as far as they can also be committed."""
    status = _MemoryStatus(size=ctypes.sizeof(_MemoryStatus))
    _system.GlobalMemoryStatusEx(ctypes.byref(status))
    return min(status.physical, status.commit)


def committed() -> int:
    """Return the bytes that this process has committed."""
    return _process_memory().pagefile


def peak_memory() -> int:
    """Return the most bytes that this process ever had in memory."""
    return _process_memory().peak_working_set


def _process_memory() -> _ProcessMemory:
    found = _ProcessMemory(size=ctypes.sizeof(_ProcessMemory))
    _system.K32GetProcessMemoryInfo(_me, ctypes.byref(found), found.size)
    return found


def seconds_since_start() -> float:
    """Return the seconds since this process was made."""
    started, other = c_uint64(), c_uint64()
    _system.GetProcessTimes(_me, *map(ctypes.byref, (started, other, other, other)))
    return time.time() + _UNIX - started.value * _TICK


def query_job(number: int, into: ctypes.Structure) -> bool:
    """Fill a structure with what is known of this process's job by that number; False where there is nothing."""
    return bool(_system.QueryInformationJobObject(None, number, ctypes.byref(into), ctypes.sizeof(into), None))
