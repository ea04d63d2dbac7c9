"""Locks that are free in a forked child, whatever other threads of its parent were doing; LLVM's is one of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from pio.shelter import import_whole
from pio.system import HERE


def free_in_children(*locks: Any) -> None:
    """Have the thread that forks hold these locks meanwhile: the child has no other thread that could release one.

    Those that are named in later calls are taken before.

    Args:
        locks: Each a ``threading.RLock``, in the order in which threads take them. Its methods are no Python code, so
            that no signal handler's exception leaves one taken; and a handler may fork in the middle of a fork.
    """
    for lock in reversed(locks):  # what is registered last is called first
        HERE.at_fork(lock.acquire, lock.release)


@cache
def llvm() -> Any:
    """Return ``llvmlite.binding``, which takes fifty megabytes: a process with all kernels on disk needs it not.

    It has a lock. Who takes another around it names that one after this call.
    """
    binding = import_whole("llvmlite.binding")
    free_in_children(binding.ffi.lib._lock._lock)
    return binding
