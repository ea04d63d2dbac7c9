"""Threads: started only where the system has memory for them, whether they are threads at all, and take turns."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Final

from pio.errors import DeviceError

if TYPE_CHECKING:
    import threading

THREAD_ROOM: Final = 16 << 20  # bytes: twice the usual stack of a thread


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        RuntimeError: The system refuses it, or the memory for it.
    """
    try:
        require_room(THREAD_ROOM, "a thread")  # one that finds no memory to begin with is waited for for ever
    except MemoryError as error:
        raise RuntimeError(f"can't start new thread: {error}") from error
    thread.start()


def require_room(nbytes: int, what: str) -> None:
    """Raise where the system would refuse memory to code that does not survive that.

    Raises:
        MemoryError: It refuses so many bytes.
    """
    import mmap

    try:
        mmap.mmap(-1, nbytes).close()  # touched by nobody, so it costs nothing
    except (OSError, MemoryError) as error:
        raise MemoryError(f"the system refuses {nbytes >> 20} MiB for {what}") from error


def green_threads() -> bool:
    """Return whether coroutines of one thread stand for threads in this process, as ``gevent.monkey`` has it."""
    import _thread

    return not isinstance(_thread.start_new_thread, BuiltinFunctionType)


def take_turns() -> bool:
    """Return whether one thread at a time runs Python: not in a free-threaded build, unless its GIL is switched on."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def require_turns() -> None:
    """Raise where threads run Python side by side: what they share here is kept whole by taking turns.

    Raises:
        DeviceError: They do.
    """
    if not take_turns():
        raise DeviceError(
            "this Python is a free-threaded build, and runs without the global interpreter lock that pio relies on; "
            "use the usual build of Python, or switch the lock on: python -X gil=1, or PYTHON_GIL=1"
        )
