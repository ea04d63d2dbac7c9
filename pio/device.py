"""Device: where memory lies and operations on it run."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn

from pio.errors import DeviceError
from pio.machine import thread_count

if TYPE_CHECKING:
    from pio.cuda.stream import Stream

_NONE: Final = frozenset[str]()
DLPACK_TYPES: Final = {"cpu": 1, "cuda": 2}  # the kinds of devices there are, with DLPack's numbers for them
# What of the kernels for GPUs can be switched off by itself, see ``Device.without``: all that operations call there.
CUDA_KERNELS: Final = (
    "activation",
    "add_gated",
    "attention",
    "bfloat16_linear",
    "causal_conv",
    "commit",
    "conv",
    "copy",
    "elementwise",
    "experts",
    "gated_delta",
    "gather",
    "grid_embedding",
    "head_linear",
    "image_patches",
    "image_resize",
    "image_rgb",
    "latent_attention",
    "linear",
    "matmul",
    "norm",
    "packing",
    "quantize",
    "quantized_linear",
    "reduce",
    "rope",
    "routing",
    "sampling",
    "softmax",
    "top_k",
)
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
    one object for each name and number of threads, and for each choice of kernels of a GPU that are switched off.
    ``"cuda"`` is ``"cuda:0"``, the first NVIDIA GPU.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        ordinal: Which one of its kind.
        threads: Over how many threads operations split; 1 on a GPU, where no thread of this process takes part.
        stream: What a GPU is asked to do, in order; None on the CPU.
        off: Kernels of a GPU that are switched off.

    Example:
        >>> device = Device("cpu", threads=2)
        >>> device == "cpu", device.threads
        (True, 2)
    """

    __slots__ = ("kind", "off", "ordinal", "stream", "threads")

    kind: str
    ordinal: int
    threads: int
    stream: Stream | None
    off: frozenset[str]

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
        found = _made.get((name, threads, _NONE))
        return cls._keep("cpu", 0, threads, None) if found is None else found

    @classmethod
    def _on_gpu(cls, ordinal: int) -> Device:
        name = f"cuda:{ordinal}"
        found = _made.get((name, 1, _NONE))
        if found is None:
            from pio.cuda.stream import stream

            found = cls._keep(name, ordinal, 1, stream(ordinal))
        return found

    @classmethod
    def _keep(cls, name: str, ordinal: int, threads: int, stream: Stream | None, off: frozenset[str] = _NONE) -> Device:
        made = str.__new__(cls, name)
        values = {"kind": name.partition(":")[0], "ordinal": ordinal, "threads": threads, "stream": stream, "off": off}
        for field, value in values.items():
            object.__setattr__(made, field, value)
        return _made.setdefault((name, threads, off), made)  # another thread may have been first

    def without(self, *kernels: str) -> Device:
        """Return this GPU with kernels switched off: operations that need one run on the CPU, over copies.

        Args:
            kernels: Names of CUDA_KERNELS.

        Raises:
            DeviceError: There is no such kernel, or this is the CPU.
        """
        for name in kernels:
            if name not in CUDA_KERNELS:
                near = get_close_matches(name, CUDA_KERNELS, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CUDA_KERNELS)}"
                raise DeviceError(f"there are no kernels of a GPU named {name!r}; {hint}")
        off = self.off.union(kernels)
        if off and self.stream is None:
            raise DeviceError(f"device {str(self)!r} has no kernels of a GPU that could be switched off")
        found = _made.get((str(self), self.threads, off))
        return self._keep(str(self), self.ordinal, self.threads, self.stream, off) if found is None else found

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's type and index: the CPU is ``(1, 0)``, the second GPU ``(2, 1)``."""
        return DLPACK_TYPES[self.kind], self.ordinal

    def give_back(self) -> None:
        """Give the memory of a GPU back that nobody uses any more, so that other processes have it.

        Else it is kept for what comes next. On the CPU memory goes as its last user does. A GPU that cannot be used any
        more has nothing to give back.
        """
        if self.stream is not None:
            with suppress(DeviceError):
                self.stream.give_back()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a device cannot be changed; make another, such as Device({str(self)!r}, threads=2)")

    def __reduce__(self) -> tuple[Callable[..., Device], tuple[object, ...]]:
        if self.off:
            return Device.without, (Device(str(self)), *sorted(self.off))
        return Device, (str(self), self.threads) if self.stream is None else (str(self),)


_made: dict[tuple[str, int, frozenset[str]], Device] = {}


@cache
def default_device() -> Device:
    """Return the device of tensors that are made without one: the CPU, with all cores that this process may use."""
    return Device("cpu")


def usable_gpu() -> Device:
    """Return the first GPU that can be used.

    Raises:
        DeviceError: There is none: no package, no driver, no GPU, or all are too old; says what to do about it.
    """
    from pio.cuda.gpu import first_usable

    return Device(f"cuda:{first_usable()}")


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
