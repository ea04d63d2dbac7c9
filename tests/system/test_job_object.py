"""Limits of job objects, from what Windows answers, byte for byte as its headers lay it out for 64 bits."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest
from needs import on_windows

from pio.system.job_object import cpu_quota, free_memory

GB = 1 << 30


def answering(answers: dict[int, bytes]) -> Callable[[int, ctypes.Structure], bool]:
    """Return a system that answers these, by the numbers of what was asked for."""

    def query(number: int, into: ctypes.Structure) -> bool:
        if number not in answers:
            return False
        assert ctypes.sizeof(into) == len(answers[number])
        ctypes.memmove(ctypes.addressof(into), answers[number], len(answers[number]))
        return True

    return query


def limits(flags: int, of_process: int = 0, of_job: int = 0) -> bytes:
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""
    basic = struct.pack("<qqIxxxxQQIxxxxQII", 1, 2, flags, 3, 4, 5, 6, 7, 8)
    return basic + struct.pack("<6Q", *range(6)) + struct.pack("<4Q", of_process, of_job, 10, 11)


def usage(of_job: int) -> bytes:
    """JOBOBJECT_MEMORY_USAGE_INFORMATION."""
    return struct.pack("<QQ", of_job, 99 * GB)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, None),
        ({9: limits(0x2000, 5 * GB, 5 * GB)}, None),
        ({9: limits(0x100, 5 * GB)}, 4 * GB),
        ({9: limits(0x200, 0, 7 * GB)}, 6 * GB),
        ({9: limits(0x200, 0, 7 * GB), 28: usage(3 * GB)}, 4 * GB),
        ({9: limits(0x300, 2 * GB, 7 * GB), 28: usage(3 * GB)}, GB),
        ({9: limits(0x300, 8 * GB, 4 * GB), 28: usage(5 * GB)}, 0),
        ({9: limits(0x300)}, None),
    ],
)
def test_memory(answers: dict[int, bytes], expected: int | None) -> None:
    assert free_memory(answering(answers), GB) == expected


@pytest.mark.parametrize(
    ("flags", "rate", "expected"),
    [
        (0, 5000, None),
        (0x1, 5000, None),
        (0x3, 5, None),  # a weight
        (0x5, 5000, 6),
        (0x5, 10_000, 12),
        (0x11, 2500 << 16 | 100, 3),
        (0x11, 10_000 << 16 | 100, 12),
        (0x4, 5000, None),
    ],
)
def test_processor_time(flags: int, rate: int, expected: int | None) -> None:
    quota = cpu_quota(answering({15: struct.pack("<II", flags, rate)}), 12)
    assert (quota if quota is None else int(quota)) == expected
    assert cpu_quota(answering({}), 12) is None


@pytest.mark.parametrize(("cores", "of"), [(2, 12), (2, 6), (2, 3), (7, 24), (4, 14), (1, 64), (63, 64), (95, 96)])
def test_a_rate_that_was_rounded_down_is_whole_cores(cores: int, of: int) -> None:
    """As a container has it that is given some cores."""
    rate = 10_000 * cores // of
    for flags, stored in ((0x5, rate), (0x11, rate << 16 | rate)):
        quota = cpu_quota(answering({15: struct.pack("<II", flags, stored)}), of)
        assert quota is not None and cores <= quota < cores + 0.1


_INTO_A_JOB = """
import ctypes
from pio.system import HERE
system, most = ctypes.WinDLL("kernel32"), (ctypes.c_uint64 * 18)()
system.CreateJobObjectW.restype = ctypes.c_void_p
job = ctypes.c_void_p(system.CreateJobObjectW(None, None))
most[2], most[14] = 0x100, 2 << 30  # the flags, the limit of each process
assert system.SetInformationJobObject(job, 9, most, 144)
assert system.AssignProcessToJobObject(job, ctypes.c_void_p(-1))
told = (ctypes.c_uint64 * 18)()
assert system.QueryInformationJobObject(None, 9, told, 144, None)
print(told[14], HERE.available_memory())
"""


@on_windows
def test_a_job_of_this_system() -> None:
    ran = subprocess.run([sys.executable, "-c", _INTO_A_JOB], capture_output=True, text=True, check=True)
    told, free = map(int, ran.stdout.split())
    if told != 2 << 30:
        pytest.skip("this system does not tell a process of its job's limits")
    assert GB < free < 2 << 30
