"""Pages that nobody may touch: who reads or writes one byte too far is ended by the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_NOBODY: Final = 1 if sys.platform == "win32" else 0  # PAGE_NOACCESS; PROT_NONE
_EVERYBODY: Final = 4 if sys.platform == "win32" else 3  # PAGE_READWRITE; PROT_READ | PROT_WRITE


def close(address: int, nbytes: int) -> None:
    """Let nobody touch these pages."""
    _protect(address, nbytes, _NOBODY)


def open_again(address: int, nbytes: int) -> None:
    """Let these pages be read and written."""
    _protect(address, nbytes, _EVERYBODY)


def _protect(address: int, nbytes: int, who: int) -> None:
    place, size = ctypes.c_void_p(address), ctypes.c_size_t(nbytes)
    if sys.platform == "win32":
        done = ctypes.WinDLL("kernel32").VirtualProtect(place, size, who, ctypes.byref(ctypes.c_ulong())) != 0
    else:
        done = ctypes.CDLL(None).mprotect(place, size, who) == 0
    assert done
