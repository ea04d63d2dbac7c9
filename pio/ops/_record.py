"""Records: what kernels read by one address instead of taking as many parameters."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from pio.device import Device
from pio.memory import step
from pio.memory.gpu_allocation import GpuAllocation

KEPT: Final = 4096  # of a few hundred bytes each: as many as the layers of some large models have


class Record:
    """Integers and floats in memory, eight bytes each, which never change.

    Attributes:
        freed: Never: the memory goes with the object.
    """

    __slots__ = ("_address", "_memory")
    freed = False

    def __init__(self, *values: float) -> None:
        packed = _pack(values)
        self._memory: Any = ctypes.create_string_buffer(packed, len(packed))
        self._address = ctypes.addressof(self._memory)

    @property
    def address(self) -> int:
        """Where the first lies; a step that is recorded holds the record."""
        step.hold(self)
        return self._address


class _GpuRecord(Record):
    """A record in a GPU's memory, which is given back behind all kernels that read it."""

    __slots__ = ()

    def __init__(self, device: Device, *values: float) -> None:
        here, stream = Record(*values), device.stream
        assert stream is not None
        self._memory = GpuAllocation(stream, 8 * len(values), what="sizes that a kernel reads")
        self._address = self._memory.address
        stream.copy_in(self._address, here.address, 8 * len(values))


def _pack(values: tuple[float, ...]) -> bytes:
    return struct.pack("".join(["d" if type(v) is float else "q" for v in values]), *values)


_of = lru_cache(KEPT, typed=True)(Record)  # 1 and 1.0 are other bytes


def record(*values: float, device: Device) -> Record:
    """Return the record of these numbers, the same one each time, so that steps that are recorded share it.

    Keep it as long as a kernel reads it: what was not asked for lately is let go. Zeros of either sign are one.

    Args:
        values: Integers and floats.
        device: On which the kernel runs.
    """
    if device.stream is None:
        return _of(*values)
    kept: dict[Any, Callable[..., Record]] = device.stream.kept
    if Record not in kept:
        kept.setdefault(Record, lru_cache(KEPT, typed=True)(_GpuRecord))
    return kept[Record](device, *values)
