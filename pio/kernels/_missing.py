"""Errors that say why a GPU has no kernel for an operation, and who is told which ones cannot be made."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from pio.errors import DeviceError


class MissingKernel(DeviceError):
    """A kernel is switched off, cannot be made for this GPU, or was never written; the CPU's does the same."""


class NoCompiler(DeviceError):
    """A kernel has to be compiled, and what compiles it is not installed."""


class _Local(threading.local):
    unmade: set[str] | None = None  # where what this thread wants, and cannot be made, is noted


_local: Final = _Local()


@contextmanager
def noting(names: set[str]) -> Generator[set[str]]:
    """Have names of kernels that cannot be made for a GPU added here, each time that this thread wants one."""
    before, _local.unmade = _local.unmade, names
    try:
        yield names
    finally:
        _local.unmade = before


def note(name: str) -> None:
    """Note that this thread wants a kernel that cannot be made, if anybody wants to know."""
    if _local.unmade is not None:
        _local.unmade.add(name)
