"""The helpers of this process: threads that wait in a compiled function, and the memory in which they find work."""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import Final, Protocol

from pio.forks import free_in_children
from pio.system import HERE
from pio.threads import green_threads, start

# One cache line for each field that threads wait on, and for each thread's range of pieces.
NUMBER, JOB, PENDING, SLEEPING, BUSY, ALONE_UNTIL, RANGES = (64 * i for i in range(7))
FUNCTION, ARGUMENTS, PIECES, HELPERS = (JOB + 8 * i for i in range(4))
MAX_THREADS: Final = 1024  # each has a range, and FINE pieces for each must fit into FIRST_BITS
SIZE: Final = RANGES + 64 * MAX_THREADS

_log = logging.getLogger("pio.kernels")


class HelpOthers(Protocol):
    """The kernel that a helper runs."""

    def __call__(self, control: int, helper: int, /) -> None:
        """Help for ever."""
        ...

    def prepare(self) -> object:
        """Have the machine code, so that calling takes no lock."""
        ...


class Pool:
    """The helpers and the memory through which they are called.

    Attributes:
        control: Address of the memory, a multiple of 64.
        helpers: How many there are.
        wanted: As many as were asked for, also where the system refused some.
    """

    def __init__(self, size: int, help_others: HelpOthers) -> None:
        """Make a pool without helpers.

        Args:
            size: Bytes of the memory.
            help_others: Serial kernel that a helper runs for ever; takes the memory's address and the helper's number.
        """
        self._memory = ctypes.create_string_buffer(size + 64)
        self.control = -(-ctypes.addressof(self._memory) // 64) * 64
        self.helpers = self.wanted = 0
        self._help_others = help_others
        self._lock = threading.RLock()  # a signal handler may grow it in the middle of that
        free_in_children(self._lock)

    def grow(self, helpers: int) -> None:
        """Have at least that many helpers; they sleep while there is nothing to do, and end with the process.

        Where the system refuses some there are fewer: what they would have done is done by the others. Coroutines in
        the place of threads cannot help, for whoever waits for work would never let the others run.
        """
        if green_threads():
            self.wanted = max(self.wanted, helpers)
            return
        # here and not in the first helper: a child forked meanwhile would wait for the compiler's lock for ever; and
        # before this lock, which is free while the others are taken
        self._help_others.prepare()
        with self._lock:
            while self.helpers < helpers and self._start():
                pass
            self.wanted = max(self.wanted, helpers)

    def retry(self) -> None:
        """Ask the system again for helpers that it refused, when they are next wanted."""
        self.wanted = self.helpers

    def _start(self) -> bool:
        self.helpers += 1  # first, so that no two have one number, whatever exception a signal handler raises
        number = self.helpers
        try:
            start(threading.Thread(target=self._help, args=(number,), name=f"pio-helper-{number}", daemon=True))
        except (RuntimeError, MemoryError) as error:
            self.helpers -= 1
            _log.warning(
                "the system refuses more threads, so work is done by %d: %s; %s", number, error, HERE.thread_remedy
            )
            return False
        return True

    def _help(self, helper: int) -> None:
        """Be a helper; its reference to the pool keeps the memory that it reads, also while the interpreter leaves."""
        self._help_others(self.control, helper)
