"""Records: what kernels read by one address instead of taking as many parameters."""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import Final

from pio.memory import step

KEPT: Final = 4096  # of a few hundred bytes each: as many as the layers of some large models have


class Record:
    """Integers and floats in memory, eight bytes each, which never change.

    Attributes:
        freed: Never: the memory goes with the object.
    """

    __slots__ = ("_address", "_memory")
    freed = False

    def __init__(self, *values: float) -> None:
        codes = "".join(["d" if type(v) is float else "q" for v in values])
        self._memory = ctypes.create_string_buffer(struct.pack(codes, *values), 8 * len(values))
        self._address = ctypes.addressof(self._memory)

    @property
    def address(self) -> int:
        """Where the first lies; a step that is recorded holds the record."""
        step.hold(self)
        return self._address


_of = lru_cache(KEPT, typed=True)(Record)  # 1 and 1.0 are other bytes


def record(*values: float) -> Record:
    """Return the record of these numbers, the same one each time, so that steps that are recorded share it.

    Keep it as long as a kernel reads it: what was not asked for lately is let go. Zeros of either sign are one.
    """
    return _of(*values)
