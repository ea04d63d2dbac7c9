"""Device: where memory lies and operations on it run."""

from __future__ import annotations

from functools import cache
from typing import Final, NoReturn

from pio.errors import DeviceError
from pio.machine import thread_count

DLPACK_TYPES: Final = {"cpu": 1}  # the kinds of devices there are, with DLPack's numbers for them
_MOVED: Final = {
    "ALIGNMENT": "pio.memory.allocation",
    "Allocation": "pio.memory.allocation",
    "allocated_bytes": "pio.memory.allocation",
    "MemoryBudget": "pio.memory.budget",
    "memory_errors": "pio.memory.refusal",
    "memory_refused": "pio.memory.refusal",
    "format_bytes": "pio.memory.sizes",
    "check_device": "pio.device, by the name on_device",
}


class Device(str):
    """Where memory lies and operations on it run; it is its name, such as ``"cpu"``, and cannot be changed.

    Devices of one name are equal: they are the same memory, over however many threads each splits operations. There is
    one object for each name and number of threads.

    Attributes:
        kind: ``"cpu"``.
        ordinal: Which one of its kind.
        threads: Over how many threads operations split.

    Example:
        >>> device = Device("cpu", threads=2)
        >>> device == "cpu", device.threads
        (True, 2)
    """

    __slots__ = ("kind", "ordinal", "threads")

    kind: str
    ordinal: int
    threads: int

    def __new__(cls, name: str, threads: int | None = None) -> Device:
        """Describe a device.

        Args:
            name: Its name.
            threads: Over how many threads to split; by default over all cores that this process may use.

        Raises:
            DeviceError: There is no such device, or no thread.
        """
        if name not in DLPACK_TYPES:
            raise DeviceError(
                f"unknown device {name!r}; this build of pio has {', '.join(DLPACK_TYPES)}: use device='cpu'"
            )
        if threads is not None and threads < 1:
            raise DeviceError(f"device {name!r}: threads is {threads}, expected 1 or more")
        threads = threads or thread_count()
        found = _made.get((name, threads))
        if found is None:
            found = super().__new__(cls, name)
            for field, value in (("kind", str(name)), ("ordinal", 0), ("threads", threads)):
                object.__setattr__(found, field, value)
            found = _made.setdefault((str(name), threads), found)  # another thread may have been first
        return found

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's type and index: the CPU is ``(1, 0)``."""
        return DLPACK_TYPES[self.kind], self.ordinal

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a device cannot be changed; make another, such as Device({str(self)!r}, threads=2)")

    def __reduce__(self) -> tuple[type[Device], tuple[str, int]]:
        return Device, (self.kind, self.threads)


_made: dict[tuple[str, int], Device] = {}


@cache
def default_device() -> Device:
    """Return the device of tensors that are made without one: the CPU, with all cores that this process may use."""
    return Device("cpu")


def on_device(device: str | None) -> Device:
    """Return a device as it is, or the one of that name; None and ``"auto"`` are the default one.

    Raises:
        DeviceError: There is no such device.
    """
    if isinstance(device, Device):
        return device
    if device is None or device == "auto" or device == default_device():
        return default_device()
    return Device(device)


def __getattr__(name: str) -> NoReturn:
    """Say where a name is that plugins of other packages import from here."""
    if name in _MOVED:
        raise ImportError(f"pio.device.{name} has moved: import it from {_MOVED[name]}")
    raise AttributeError(f"module 'pio.device' has no attribute {name!r}")
