"""Allocation: memory that pio takes from the system; all of it is counted, and budgets limit it."""

from __future__ import annotations

import ctypes
import itertools
from typing import TYPE_CHECKING, Final

from pio.errors import ConfigError, OutOfMemoryError
from pio.memory.budget import MemoryBudget
from pio.memory.sizes import format_bytes
from pio.system import HERE

if TYPE_CHECKING:
    import mmap

ALIGNMENT: Final = 64  # bytes: one cache line, one AVX-512 register
_MAPPED_FROM: Final = (
    1 << 20
)  # smaller blocks come from the heap: a mapping costs a system call and a page fault a page
_HUGE_PAGE: Final = 2 << 20

# Inserting and popping a key is atomic, so finalisers, which the collector may run at any point, need no lock.
_live: dict[int, int] = {}
_keys = itertools.count()


def allocated_bytes() -> int:
    """Return the bytes of all living allocations of pio in this process; wrapped buffers do not count."""
    return sum(_live.copy().values())


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
        # a signal's exception may have come before the first line of __init__, or between any two
        if (key := getattr(self, "_key", -1)) >= 0:
            live.pop(key)
        if (budget := getattr(self, "_budget", None)) is not None:
            budget.release(self.nbytes)


def _from_heap(nbytes: int) -> tuple[bytearray, int]:
    """Return zeroed heap memory and the first 64-byte boundary in it."""
    memory = bytearray(nbytes + ALIGNMENT)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory, start + -start % ALIGNMENT


def _map(nbytes: int) -> tuple[mmap.mmap, int]:
    """Return a private anonymous mapping, which leaves the process when it dies, and its start."""
    align = _HUGE_PAGE if nbytes >= _HUGE_PAGE else ALIGNMENT
    memory = HERE.private_memory(nbytes + align)
    if nbytes >= _HUGE_PAGE:
        HERE.prefer_huge_pages(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory, start + -start % align
