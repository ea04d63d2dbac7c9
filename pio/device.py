"""Device: where memory lies and operations on it run."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn

from pio.errors import DeviceError
from pio.machine import thread_count

if TYPE_CHECKING:
    from pio.cuda.stream import Stream

_log: Final = logging.getLogger("pio")
DLPACK_TYPES: Final = {"cpu": 1, "cuda": 2}  # the kinds of devices there are, with DLPack's numbers for them
CUDA: Final = re.compile(r"cuda(?::(0|[1-9]\d{0,3}))?")  # names of NVIDIA GPUs, with their number
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
    one object for each name and number of threads. ``"cuda"`` is ``"cuda:0"``, the first NVIDIA GPU.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        ordinal: Which one of its kind.
        threads: Over how many threads operations split; 1 on a GPU, where no thread of this process takes part.
        stream: What a GPU is asked to do, in order; None on the CPU.

    Example:
        >>> device = Device("cpu", threads=2)
        >>> device == "cpu", device.threads
        (True, 2)
    """

    __slots__ = ("kind", "ordinal", "stream", "threads")

    kind: str
    ordinal: int
    threads: int
    stream: Stream | None

    def __new__(cls, name: str, threads: int | None = None) -> Device:
        """Describe a device.

        Args:
            name: Its name.
            threads: Over how many threads to split; by default over all cores that this process may use. Of the CPU.

        Raises:
            DeviceError: There is no such device, or no thread; or a GPU has no driver, an old one, or is too old.
        """
        gpu = CUDA.fullmatch(name)
        if name != "cpu" and gpu is None:
            raise DeviceError(f"unknown device {name!r}; there are 'cpu', 'cuda' and 'cuda:1': use device='cpu'")
        if threads is not None and (threads < 1 or gpu is not None):
            expected = "none, for they are the CPU's" if gpu is not None else "1 or more"
            raise DeviceError(f"device {name!r}: threads is {threads}, expected {expected}")
        if gpu is not None:
            return cls._on_gpu(int(gpu[1] or 0))
        threads = threads or thread_count()
        found = _made.get((name, threads))
        return cls._keep("cpu", 0, threads, None) if found is None else found

    @classmethod
    def _on_gpu(cls, ordinal: int) -> Device:
        name = f"cuda:{ordinal}"
        found = _made.get((name, 1))
        if found is None:
            from pio.cuda.stream import stream

            found = cls._keep(name, ordinal, 1, stream(ordinal))
        return found

    @classmethod
    def _keep(cls, name: str, ordinal: int, threads: int, stream: Stream | None) -> Device:
        made = str.__new__(cls, name)
        kind = name.partition(":")[0]
        for field, value in (("kind", kind), ("ordinal", ordinal), ("threads", threads), ("stream", stream)):
            object.__setattr__(made, field, value)
        return _made.setdefault((name, threads), made)  # another thread may have been first

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's type and index: the CPU is ``(1, 0)``, the second GPU ``(2, 1)``."""
        return DLPACK_TYPES[self.kind], self.ordinal

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a device cannot be changed; make another, such as Device({str(self)!r}, threads=2)")

    def __reduce__(self) -> tuple[type[Device], tuple[str, int] | tuple[str]]:
        return Device, (str(self), self.threads) if self.stream is None else (str(self),)


_made: dict[tuple[str, int], Device] = {}


@cache
def default_device() -> Device:
    """Return the device of tensors that are made without one: the CPU, with all cores that this process may use."""
    return Device("cpu")


def best_device() -> Device:
    """Return the first GPU where one can be used, else the default device; a log message says why it is that.

    Why there is no GPU is looked at once.
    """
    try:
        found = Device("cuda")
    except (DeviceError, ImportError) as error:
        return _without_gpu(str(error))
    return found


@cache
def _without_gpu(why: str) -> Device:
    _log.info("device=auto runs on the CPU: %s", why)
    return default_device()


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


def gpus() -> list[str]:
    """Return a line for each GPU of this machine that can be used.

    Raises:
        DeviceError: There is none; says why, and what to do about it.
    """
    from pio.cuda.gpu import describe

    return describe()


def __getattr__(name: str) -> NoReturn:
    """Say where a name is that plugins of other packages import from here."""
    if name in _MOVED:
        raise ImportError(f"pio.device.{name} has moved: import it from {_MOVED[name]}")
    raise AttributeError(f"module 'pio.device' has no attribute {name!r}")
