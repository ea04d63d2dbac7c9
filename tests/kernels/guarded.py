"""Memory for tensors that ends at a page which nobody may touch, and begins behind one.

A kernel that reads or writes outside of a tensor is ended by the system there and then, and so is one that is given
the address of a tensor that has died: its pages are gone. Bytes between the tensor and its pages' ends hold a pattern,
which must still be there when it dies.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

import pages

ALIGNMENT: Final = 64
PATTERN: Final = 0xA5


class GuardedMemory:
    """Zeroed memory of a tensor, alone in its pages.

    Attributes:
        address: Its first byte; 64 divides it.
    """

    def __init__(self, nbytes: int) -> None:
        page = mmap.PAGESIZE
        room = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        inner = -(-room // page) * page
        self._memory = mmap.mmap(-1, inner + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + page
        self.address = start + inner - room
        self._beside = ((start, inner - room), (self.address + nbytes, room - nbytes))
        for at, count in self._beside:
            ctypes.memset(at, PATTERN, count)
        pages.close(start - page, page)
        pages.close(start + inner, page)

    def __del__(self) -> None:
        for (at, count), where in zip(self._beside, ("before", "behind"), strict=True):
            assert ctypes.string_at(at, count).count(PATTERN) == count, f"a kernel wrote {where} a tensor"


def allocate(nbytes: int) -> tuple[GuardedMemory, int]:
    """Return memory and its address, as ``pio.memory.allocation`` asks the system for them."""
    memory = GuardedMemory(nbytes)
    return memory, memory.address
