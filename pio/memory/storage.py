"""Storage: a stretch of memory with an address, and the object that keeps it alive."""

from __future__ import annotations

import builtins
import ctypes
from typing import Any, NoReturn, cast

from pio.device import Device, default_device
from pio.errors import DeviceError, TensorError
from pio.memory import step
from pio.memory.allocation import Allocation
from pio.memory.budget import MemoryBudget
from pio.memory.gpu_allocation import GpuAllocation

_FULL_READ_ONLY = 0x11C  # PyBUF_FULL_RO: any strides, format included, writable or not


class _PyBuffer(ctypes.Structure):
    """The C struct Py_buffer."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


# Own prototypes: argtypes set on ctypes.pythonapi itself would change them for the whole process.
_get_buffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)(
    ("PyObject_GetBuffer", ctypes.pythonapi)
)
_release_buffer = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyBuffer_Release", ctypes.pythonapi))


class BufferHold:
    """A buffer export that stays open, so that its owner can neither move nor free the memory.

    Attributes:
        address: Where element 0 lies.
    """

    __slots__ = ("__weakref__", "_at", "_release", "_view", "address")

    def __init__(self, source: object) -> None:
        """Open the buffer of ``source``; it may be read-only.

        Raises:
            TensorError: ``source`` exports no buffer.
            RecordingError: This thread records a step, which may not take in memory of Python.
        """
        self._release = None
        step.refuse(f"takes the memory of a {type(source).__name__}", step.WRITES)
        view = _PyBuffer()
        try:
            _get_buffer(source, ctypes.addressof(view), _FULL_READ_ONLY)
        except (TypeError, BufferError, ValueError) as error:
            raise TensorError(f"cannot read a {type(source).__name__} as a buffer: {error}") from error
        self._view = view
        self._at = ctypes.addressof(view)
        self._release = _release_buffer  # own references: the module may be gone when this dies
        self.address: int = view.buf or 0

    def __del__(self) -> None:
        if self._release is not None:
            self._release(self._at)


class Storage:
    """A stretch of memory.

    Attributes:
        address: Its first byte.
        nbytes: Its length in bytes.
        owner: The object that keeps it alive.
        readonly: Whether writing is forbidden.
        device: Where it lies, and operations on it run.
        freed: Whether it was given back by ``free``.
    """

    __slots__ = ("__weakref__", "_shown", "address", "device", "freed", "nbytes", "owner", "readonly")

    def __init__(
        self, address: int, nbytes: int, owner: object, readonly: bool = False, device: Device | None = None
    ) -> None:
        """Describe ``nbytes`` at ``address`` that stay valid while ``owner`` lives; nothing is checked.

        They lie on the default device where none is given.
        """
        self.address = address
        self.nbytes = nbytes
        self.owner = owner
        self.readonly = readonly
        self.device = default_device() if device is None else device
        self.freed = False
        self._shown = False

    @classmethod
    def allocate(
        cls,
        nbytes: int,
        *,
        budget: MemoryBudget | None = None,
        what: str = "a tensor",
        device: Device | None = None,
    ) -> Storage:
        """Allocate zeroed memory, 64-byte aligned; from 2 MiB on in huge pages where the system has them.

        On a GPU it comes from its driver's pool, 256-byte aligned, for work that is asked for from here on.

        Args:
            nbytes: Bytes wanted.
            budget: Charged until the memory is freed.
            what: What it is for; named in the error.
            device: Where; the default one if None.

        Raises:
            OutOfMemoryError: The budget, the system or the GPU refuses.
            RecordingError: This thread records a step, which may not allocate.
        """
        step.refuse(f"makes {what}", step.ALLOCATES)
        if device is not None and device.stream is not None:
            memory = GpuAllocation(device.stream, nbytes, budget, what)
        else:
            memory = Allocation(nbytes, budget, what)
        return cls(memory.address, nbytes, memory, device=device)

    @classmethod
    def of(cls, source: object) -> Storage:
        """Wrap the contiguous memory of an object with the buffer protocol, without a copy.

        Raises:
            TensorError: ``source`` exports no buffer, or one with gaps.
        """
        hold = BufferHold(source)
        with memoryview(source) as view:  # pyright: ignore[reportArgumentType]
            if not view.c_contiguous:
                raise TensorError(f"cannot wrap a {type(source).__name__} whose elements are not contiguous")
            return cls(hold.address, view.nbytes, hold, view.readonly)

    def to(self, device: Device) -> Storage:
        """Return this memory as operations see it on that device, which is the same memory under any number of threads.

        It stays alive as long as the result does.

        Raises:
            DeviceError: That device is other memory.
        """
        if device is self.device:
            return self
        if device != self.device:
            raise DeviceError(f"memory of {self.device} is none of {device}; copy the tensor by .to({str(device)!r})")
        return Storage(self.address, self.nbytes, self.keep(), self.readonly, device)

    def free(self) -> None:
        """Give the memory back now, whatever tensors are left of it; freeing twice is harmless.

        Those tensors and recorded steps on it raise an error when they are used. No operation may run on it meanwhile.
        Views in Python and other libraries keep the memory until the last of them is gone.

        Raises:
            RecordingError: This thread records a step.
        """
        step.refuse("frees memory", step.FREES)
        self.freed = True
        step.note_freed()
        if not self._shown:
            self.owner = None

    def check(self) -> None:
        """Raise an error if the memory was freed.

        Raises:
            TensorError: It was.
        """
        if self.freed:
            raise TensorError(
                "the memory of this tensor was freed, as that of a model's cache is by cleanup(); clone() what is "
                "needed before"
            )

    def keep(self) -> object:
        """Return what keeps the memory alive, for who goes on to look at it and does not ask whether it was freed.

        Raises:
            TensorError: It was.
        """
        owner = self.owner  # before the look: free() in another thread says so first, then lets go
        self.check()
        return owner

    def show(self) -> None:
        """Note that somebody gets the address who can keep this object alive, but not what ``keep`` returns.

        Raises:
            TensorError: The memory was freed.
        """
        self._shown = True  # before the look: free() in another thread says so first, then looks here
        self.check()

    def check_readable(self, what: str) -> None:
        """Raise an error unless Python can read this memory.

        Args:
            what: What reads it, such as ``"a memoryview"``.

        Raises:
            DeviceError: It lies on a GPU.
        """
        if self.device.stream is not None:
            raise DeviceError(f'{what} reads memory of the CPU, and this lies on {self.device}: call .to("cpu") first')

    def memoryview(self, address: int | None = None, nbytes: int | None = None) -> builtins.memoryview:
        """Return a view of bytes that keeps the memory alive, read-only where the storage is.

        Args:
            address: First byte; the start of the storage if None.
            nbytes: Length; the whole storage if None.

        Raises:
            DeviceError: It lies on a GPU.
            RecordingError: This thread records a step, which may not show numbers to Python.
            TensorError: The memory was freed.
        """
        step.refuse("shows numbers to Python", step.READS)
        self.check_readable("a memoryview")
        kept = self, self.keep()
        nbytes = self.nbytes if nbytes is None else nbytes
        memory = (ctypes.c_ubyte * nbytes).from_address(self.address if address is None else address)
        cast(Any, memory).kept = kept  # the view holds the array, the array holds the memory
        view = builtins.memoryview(memory).cast("B")
        return view.toreadonly() if self.readonly else view

    def __reduce__(self) -> NoReturn:
        raise TensorError("a Storage is an address in this process and cannot be pickled or copied; pickle the Tensor")

    def __repr__(self) -> str:
        where = "" if self.device.stream is None else f", {self.device}"
        access = ", readonly" if self.readonly else ""
        return f"Storage({self.nbytes} bytes at {self.address:#x}{where}{access})"
