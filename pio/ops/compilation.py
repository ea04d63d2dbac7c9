"""Compiled kernels: where they are kept, when they are made, and on what they run."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pio.kernels import _atomics as atomics
from pio.kernels import _jit, parallel, simd


def enabled() -> bool:
    """Return whether kernels are compiled at all; without the compiler they run as slow Python."""
    return simd.JIT


def cache_folder() -> Path | None:
    """Return the folder of compiled kernels of this version, or None where none can be used."""
    return _jit.cache_folder()


def cache_size() -> tuple[int, int]:
    """Return how many compiled kernels the folder holds, and the bytes of all of it."""
    folder = cache_folder()
    if folder is None:
        return 0, 0
    files = [entry for entry in os.scandir(folder) if entry.is_file()]
    return sum(entry.name.endswith(".nbc") for entry in files), sum(entry.stat().st_size for entry in files)


def helpers() -> tuple[int, bool]:
    """Return how many helper threads this process has by now, and whether idle ones sleep until they are woken."""
    return parallel.helpers(), atomics.SLEEPS


def cpu_features() -> dict[str, bool]:
    """Return what the processor can do, by LLVM's names, as kernels are compiled for it."""
    return _jit.cpu_features()


def watch(
    started: Callable[[str], None],
    finished: Callable[[str], None] = lambda _: None,
    loaded: Callable[[str], None] = lambda _: None,
) -> AbstractContextManager[None]:
    """Call back with names of kernels while the context is open; nothing is left of it afterwards.

    Args:
        started: Called as a kernel begins to be compiled; calls nest where one kernel calls another.
        finished: Called when it is compiled, or failed.
        loaded: Called for a kernel that the cache folder held.
    """
    return _jit.watch_compilation(started, finished, loaded)
