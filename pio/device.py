"""The devices there are, and the memory pio takes from them: every own allocation is counted and can be limited."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import mmap
import threading
from collections.abc import Generator
from typing import Final

from pio.errors import ConfigError, DeviceError, OutOfMemoryError
from pio.threads import require_room

ALIGNMENT: Final = 64  # bytes: one cache line, one AVX-512 register
DEVICES: Final = ("cpu",)
_MAPPED_FROM: Final = (
    1 << 20
)  # smaller blocks come from the heap: a mapping costs a system call and a page fault a page
WORK_ROOM: Final = 32 << 20  # bytes for tokenizers and other libraries, beside what is counted
_HUGE_PAGE: Final = 2 << 20
_REFUSED: Final = (errno.ENOMEM, errno.EAGAIN)  # of a mapping; the latter where too much would be locked

# Inserting and popping a key is atomic, so finalisers, which the collector may run at any point, need no lock.
_live: dict[int, int] = {}
_keys = itertools.count()


def allocated_bytes() -> int:
    """Return the bytes of all living allocations of pio in this process; wrapped buffers do not count."""
    return sum(_live.copy().values())


def check_device(name: str) -> str:
    """Return ``name`` if there is such a device; ``"auto"`` means the CPU.

    Raises:
        DeviceError: The name is unknown.
    """
    if name == "auto":
        return "cpu"
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}; this build of pio has {', '.join(DEVICES)}: use device='cpu'")
    return name


def format_bytes(nbytes: int) -> str:
    """Return a size in words, such as ``"1.5 GiB (1610612736 bytes)"``."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if nbytes >= 1 << shift:
            return f"{nbytes / (1 << shift):.4g} {unit} ({nbytes} bytes)"
    return f"{nbytes} bytes"


def memory_refused(error: BaseException, doing: str) -> OutOfMemoryError | None:
    """Return the error for memory that Python or the system refused, or None where it was something else.

    Args:
        error: What was raised.
        doing: What was being done, such as ``"loading a model"``.
    """
    if isinstance(error, OutOfMemoryError):
        return error
    if not isinstance(error, MemoryError) and getattr(error, "errno", None) not in _REFUSED:
        return None
    return OutOfMemoryError(
        f"the system refused memory while {doing} ({str(error) or 'out of memory'}); pio holds "
        f"{format_bytes(allocated_bytes())} now: give the process more (ulimit -v, a control group), or ask for less"
    )


@contextlib.contextmanager
def memory_errors(doing: str) -> Generator[None]:
    """Raise an OutOfMemoryError in the place of whatever Python or the system raises where memory is refused.

    Without memory to work in, nothing is begun: libraries in Rust and C++ end the process where they find none.
    """
    try:
        require_room(WORK_ROOM, doing)
        yield
    except (MemoryError, OSError) as error:
        refused = memory_refused(error, doing)
        if refused is None:
            raise
        raise refused from error


class MemoryBudget:
    """A limit on bytes that several owners share; safe to use from any thread.

    Example:
        >>> budget = MemoryBudget(1000)
        >>> budget.reserve(600, "the weights")
        >>> budget.available
        400
    """

    __slots__ = ("_limit", "_lock", "_returned", "_used")

    def __init__(self, limit_bytes: int) -> None:
        """Allow ``limit_bytes`` in total.

        Raises:
            ConfigError: The limit is negative.
        """
        if limit_bytes < 0:
            raise ConfigError(f"a memory limit must not be negative, found {limit_bytes}")
        self._limit = limit_bytes
        self._used = 0
        # What is released waits here for the next who reserves: finalisers release, in any thread and at any moment,
        # and may wait for no lock.
        self._returned: list[int] = []
        self._lock = threading.RLock()  # re-entrant, for a signal handler may reserve while this very thread does

    @property
    def limit(self) -> int:
        """Bytes allowed in total."""
        return self._limit

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        return self._used - sum(self._returned.copy())

    @property
    def available(self) -> int:
        """Bytes that can still be reserved."""
        return self._limit - self.used

    def reserve(self, nbytes: int, what: str) -> None:
        """Take ``nbytes`` for ``what`` out of the budget, or nothing at all.

        Args:
            nbytes: Bytes to take.
            what: What they are for, as a noun phrase; it appears in the error.

        Raises:
            OutOfMemoryError: Fewer bytes are left.
            ConfigError: The size is negative.
        """
        if nbytes < 0:
            raise ConfigError(f"cannot reserve {nbytes} bytes for {what}")
        with self._lock:
            while self._returned:
                returned = self._returned.pop()
                self._used -= returned
            if self._used + nbytes > self._limit:
                raise OutOfMemoryError(
                    f"{what}: {format_bytes(nbytes)} needed, and of the memory limit of {format_bytes(self._limit)} "
                    f"{format_bytes(self._used)} are in use; raise memory_limit or ask for less"
                )
            self._used += nbytes

    def release(self, nbytes: int) -> None:
        """Give ``nbytes`` back.

        Raises:
            ConfigError: Fewer bytes are reserved, or the size is negative.
        """
        if not 0 <= nbytes <= self.used:
            raise ConfigError(f"cannot release {nbytes} bytes of a budget with {self.used} bytes in use")
        self._returned.append(nbytes)

    def __repr__(self) -> str:
        return f"MemoryBudget(used={self.used}, limit={self._limit})"


class Allocation:
    """Zeroed memory of pio's own, counted while it lives and given back when the last reference dies.

    Attributes:
        address: Where it starts: a multiple of 64, from 2 MiB on a multiple of 2 MiB.
        nbytes: Usable bytes.
    """

    __slots__ = ("__weakref__", "_budget", "_key", "_memory", "address", "nbytes")

    def __init__(self, nbytes: int, budget: MemoryBudget | None = None, what: str = "a tensor") -> None:
        """Allocate ``nbytes`` zero bytes, charged to ``budget`` if there is one.

        Raises:
            OutOfMemoryError: The budget or the system refuses.
            ConfigError: The size is negative.
        """
        self._key = -1
        self._budget: MemoryBudget | None = None
        if nbytes < 0:
            raise ConfigError(f"cannot allocate {nbytes} bytes for {what}")
        if budget is not None:
            budget.reserve(nbytes, what)
            self._budget = budget
        self.nbytes = nbytes
        try:
            self._memory, self.address = _map(nbytes) if nbytes >= _MAPPED_FROM else _from_heap(nbytes)
        except (OSError, MemoryError, OverflowError) as error:
            raise OutOfMemoryError(
                f"the system refused {format_bytes(nbytes)} for {what} ({error or 'out of memory'}); "
                f"pio holds {format_bytes(allocated_bytes())} now: free some or ask for less"
            ) from error
        key = next(_keys)
        _live[key] = nbytes
        self._key = key

    def __del__(self, live: dict[int, int] = _live) -> None:
        if self._key >= 0:
            live.pop(self._key)
        if self._budget is not None:
            self._budget.release(self.nbytes)


def _from_heap(nbytes: int) -> tuple[bytearray, int]:
    """Return zeroed heap memory and the first 64-byte boundary in it."""
    memory = bytearray(nbytes + ALIGNMENT)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory, start + -start % ALIGNMENT


def _map(nbytes: int) -> tuple[mmap.mmap, int]:
    """Return a private anonymous mapping, which leaves the process when it dies, and its start."""
    align = _HUGE_PAGE if nbytes >= _HUGE_PAGE else ALIGNMENT
    memory = mmap.mmap(-1, nbytes + align, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is not None and nbytes >= _HUGE_PAGE:
        with contextlib.suppress(OSError):  # a kernel built without huge pages refuses the advice; nothing else changes
            memory.madvise(advice)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory, start + -start % align
