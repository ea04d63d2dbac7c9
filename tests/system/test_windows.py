"""What Windows says of the machine and of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest
from needs import on_windows

from pio.errors import OutOfMemoryError
from pio.memory.refusal import memory_refused
from pio.system import HERE

pytestmark = on_windows

if sys.platform == "win32":
    from pio.system.windows_machine import count_cores


@pytest.mark.parametrize(
    ("mine", "of_group", "groups", "active", "build", "expected"),
    [
        (0b1111, 0b1111, 1, 4, 19045, 4),
        (0b0101, 0b1111, 1, 4, 19045, 2),
        ((1 << 64) - 1, (1 << 64) - 1, 2, 96, 17763, 64),  # earlier ones keep a process in its group
        ((1 << 64) - 1, (1 << 64) - 1, 2, 96, 20348, 96),
        (0b11, (1 << 64) - 1, 2, 96, 20348, 2),
        (0, 0, 2, 96, 17763, 96),  # it has threads in both
    ],
)
def test_cores(mine: int, of_group: int, groups: int, active: int, build: int, expected: int) -> None:
    assert count_cores(mine, of_group, groups, active, build) == expected


def test_affinity() -> None:
    code = (
        "import ctypes; from pio.system import HERE; print(HERE.core_count()); "
        "assert ctypes.WinDLL('kernel32').SetProcessAffinityMask(ctypes.c_void_p(-1), ctypes.c_size_t(1)); "
        "print(HERE.core_count())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert list(map(int, ran.stdout.split())) == [os.cpu_count(), 1]


def test_memory_and_time() -> None:
    code = (
        "from pio.system import HERE; free, peak = HERE.available_memory(), HERE.peak_memory(); "
        "block = bytearray(64 << 20); block[::4096] = b'x' * (64 << 8); "
        "print(free, peak, HERE.peak_memory(), HERE.seconds_since_start())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    free, peak, later, seconds = map(float, ran.stdout.split())
    assert 1 << 20 < free < 1 << 44 and 1 << 20 < peak < 1 << 28
    assert 50 << 20 < later - peak < 80 << 20 and 0 < seconds < 600


@pytest.mark.parametrize("number", [8, 14, 1455])
def test_memory_that_is_refused_is_told_from_other_trouble(number: int) -> None:
    assert HERE.refuses_memory(OSError(None, "no memory", None, number))
    assert not HERE.refuses_memory(OSError(None, "not allowed", None, 5))
    with pytest.raises((OSError, MemoryError)) as found:
        HERE.private_memory(1 << 46)
    assert isinstance(memory_refused(found.value, "trying"), OutOfMemoryError)


def test_names() -> None:
    version = sys.getwindowsversion()
    assert HERE.name().startswith("Windows") and HERE.name().endswith(
        f"{version.major}.{version.minor}.{version.build}"
    )
    assert HERE.machine == {"win-amd64": "x86_64", "win-arm64": "aarch64"}[sysconfig.get_platform()]
    assert HERE.processor_name()
