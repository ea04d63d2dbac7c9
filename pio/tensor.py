"""Tensor: typed elements in a storage, seen through a shape and strides."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final, SupportsIndex, TypeAlias, cast

from pio import dtypes
from pio.device import Device, default_device, on_device
from pio.dtypes import DType
from pio.errors import TensorError
from pio.memory import copies, elements, layout, step
from pio.memory.compiled import operations
from pio.memory.elements import Nested
from pio.memory.layout import Index, Shape, row_major
from pio.memory.operators import add_refusals
from pio.memory.storage import Storage

__all__ = ["Storage", "Tensor", "row_major"]

Lengths: TypeAlias = "SupportsIndex | Sequence[SupportsIndex]"
_SHOWN: Final = 6


class Tensor:
    """Elements of one type in memory, seen through a shape and strides.

    Indexing, ``reshape`` and ``transpose`` give views of the same memory; ``contiguous`` and ``astype`` copy where
    they must. Equality is identity.

    Attributes:
        storage: The memory, kept alive by this reference.
        dtype: Element type.
        shape: Lengths.
        strides: Elements (not bytes) from one position to the next along each axis; may be negative or zero.

    Example:
        >>> t = Tensor.from_list([[1, 2, 3], [4, 5, 6]])
        >>> t[:, ::-2].tolist()
        [[3.0, 1.0], [6.0, 4.0]]
    """

    __slots__ = ("__weakref__", "_address", "dtype", "shape", "storage", "strides")

    def __init__(self, storage: Storage, address: int, dtype: DType, shape: Shape, strides: Shape) -> None:
        """Describe elements that lie inside ``storage``; nothing is checked, so that a view costs little."""
        self.storage = storage
        self._address = address
        self.dtype = dtype
        self.shape = shape
        self.strides = strides

    # Construction

    @classmethod
    def empty(cls, shape: Lengths, dtype: str | DType = dtypes.float32, device: str | None = None) -> Tensor:
        """Allocate a row-major tensor; do not rely on what it holds.

        Args:
            shape: Lengths.
            dtype: Element type.
            device: Where operations on it run: a ``pio.device.Device``, or its name; the default one if None.

        Raises:
            DeviceError: There is no such device.
            OutOfMemoryError: The system refuses the memory.
            TensorError: The shape is no sequence of lengths.
        """
        kind = dtypes.dtype(dtype)
        lengths = layout.check_shape(shape)
        what = f"a {kind} tensor of shape {lengths}"
        storage = Storage.allocate(prod(lengths) * kind.itemsize, what=what, device=on_device(device))
        return cls(storage, storage.address, kind, lengths, row_major(lengths))

    @classmethod
    def zeros(cls, shape: Lengths, dtype: str | DType = dtypes.float32, device: str | None = None) -> Tensor:
        """Allocate a row-major tensor of zeros; errors as in ``empty``."""
        return cls.empty(shape, dtype, device)  # fresh storage is zeroed

    @classmethod
    def full(
        cls, shape: Lengths, value: float, dtype: str | DType = dtypes.float32, device: str | None = None
    ) -> Tensor:
        """Allocate a row-major tensor in which every element is ``value``; errors as in ``empty`` and ``fill_``."""
        return cls.empty(shape, dtype, device).fill_(value)

    @classmethod
    def from_list(cls, nested: Nested, dtype: str | DType = dtypes.float32, device: str | None = None) -> Tensor:
        """Copy a nested list (or one number, for shape ``()``) into a new tensor.

        Floats are rounded once, to the nearest, ties to even; beyond the largest finite value they become infinite.

        Raises:
            TensorError: The list is ragged, or holds what the type cannot.
        """
        kind = dtypes.dtype(dtype)
        shape = elements.shape_of(nested)
        return _rebuild(kind, shape, elements.encode(elements.flatten(nested, shape), kind), on_device(device))

    @classmethod
    def from_buffer(
        cls, source: object, dtype: str | DType | None = None, shape: Sequence[SupportsIndex] | None = None
    ) -> Tensor:
        """Wrap the memory of an object with the buffer protocol, such as an array or a mapped file, without a copy.

        Args:
            source: The object; it is kept alive, and read-only memory gives a tensor that refuses writing.
            dtype: Element type; read from the buffer's format if None. Buffers of bytes, and of 16-bit integers for
                the 16-bit floats, are reinterpreted.
            shape: Shape to see it in, one length may be -1; as in the buffer if None.

        Raises:
            TensorError: No buffer, a format pio has no type for, or sizes that do not agree.
        """
        from pio.memory.buffers import wrap

        tensor = cls(*wrap(source, None if dtype is None else dtypes.dtype(dtype)))
        return tensor if shape is None else tensor.reshape(*shape)

    @classmethod
    def from_dlpack(cls, source: object) -> Tensor:
        """Wrap the memory of another library's tensor by DLPack, without a copy: on the CPU, or on an NVIDIA GPU.

        Raises:
            DeviceError: It lies on a device of another kind, or pio cannot use that GPU.
            TensorError: ``source`` speaks no DLPack, or has an element type that pio lacks.
        """
        from pio.memory.dlpack import import_tensor

        return cls(*import_tensor(source))

    # Properties

    @property
    def address(self) -> int:
        """Address of element 0; a step that is recorded holds the memory, for this is all that it knows of it.

        Raises:
            TensorError: The memory was freed.
        """
        if self.storage.freed:
            self.storage.check()
        if step.local.step is not None:
            step.local.step.hold(self.storage)
        return self._address

    @property
    def device(self) -> Device:
        """Where it lies and operations on it run; a string that is the device's name."""
        return self.storage.device

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements, gaps between them not counted."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return layout.is_row_major(self.shape, self.strides)

    @property
    def readonly(self) -> bool:
        """Whether writing is forbidden."""
        return self.storage.readonly

    # Views

    def _view(self, offset: int, shape: Shape, strides: Shape) -> Tensor:
        return Tensor(self.storage, self._address + offset * self.dtype.itemsize, self.dtype, shape, strides)

    def __getitem__(self, key: Index | tuple[Index, ...]) -> Tensor:
        return self._view(*layout.indexed(self.shape, self.strides, key))

    def reshape(self, *shape: Lengths) -> Tensor:
        """Return a view in another shape, given as integers or as one sequence; one length may be -1.

        Raises:
            TensorError: The sizes differ, or no strides give that view.
        """
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        new = layout.resolve_shape(cast(Sequence[SupportsIndex], given), self.size)
        strides = layout.reshaped(self.shape, self.strides, new)
        if strides is None:
            raise TensorError(
                f"no view of shape {self.shape} and strides {self.strides} has the shape {new}; "
                "call .contiguous() first"
            )
        return self._view(0, new, strides)

    def transpose(self, *axes: SupportsIndex) -> Tensor:
        """Return a view with its axes in the given order, or in reverse if none is given.

        Raises:
            TensorError: The axes are no permutation.
        """
        order = layout.permuted(axes, self.ndim)
        return self._view(0, tuple(self.shape[i] for i in order), tuple(self.strides[i] for i in order))

    @property
    def T(self) -> Tensor:
        """A view with its axes in reverse."""
        return self._view(0, self.shape[::-1], self.strides[::-1])

    def __len__(self) -> int:
        if not self.shape:
            raise TensorError("a tensor of shape () has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self)):
            yield self[i]

    # Numbers

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python numbers, or as one number for shape ``()``."""
        return copies.to_list(self)

    def item(self) -> Any:
        """Return the only element as a Python number.

        Raises:
            TensorError: There is not exactly one.
        """
        if self.size != 1:
            raise TensorError(f"item() needs exactly one element, found shape {self.shape}")
        return self._view(0, (), ()).tolist()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise TensorError(f"a tensor of shape {self.shape} is neither true nor false; compare its size or elements")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.is_float:
            raise TensorError(f"a {self.dtype} tensor is no index; call int() on it, or .astype('int64')")
        return int(self.item())

    def memoryview(self) -> builtins.memoryview:
        """Return the elements as a buffer that keeps the storage alive; the 16-bit floats show as ``"H"``.

        It has this shape, or ``(0,)`` where there are no elements.

        Raises:
            TensorError: The elements are not contiguous.
            DeviceError: They lie on a GPU; ``.to("cpu")`` first.
        """
        if not self.is_contiguous:
            raise TensorError(
                f"no memoryview of shape {self.shape} with strides {self.strides}; call .contiguous() first"
            )
        data = self.storage.memoryview(self.address, self.nbytes)
        return elements.view_as(data, self.dtype, self.shape) if self.size else elements.view_as(data, self.dtype)

    # Copies

    def clone(self) -> Tensor:
        """Return a row-major copy."""
        return Tensor.empty(self.shape, self.dtype, self.device).copy_(self)

    def contiguous(self) -> Tensor:
        """Return this tensor if it is row-major without gaps, else a copy that is."""
        return self if self.is_contiguous else self.clone()

    def astype(self, dtype: str | DType) -> Tensor:
        """Return this tensor if it has that type, else a row-major copy converted to it."""
        kind = dtypes.dtype(dtype)
        return self if kind is self.dtype else Tensor.empty(self.shape, kind, self.device).copy_(self)

    def to(self, device: str) -> Tensor:
        """Return this tensor on a device: the same memory where it lies there, else a row-major copy.

        A name alone asks for no number of threads.

        Raises:
            DeviceError: There is no such device.
            OutOfMemoryError: It has too little memory.
            RecordingError: This thread records a step, and it lies elsewhere.
        """
        if not isinstance(device, Device) and device in ("auto", self.device):
            return self
        there = on_device(device)
        if there != self.storage.device:
            return cast(Tensor, copies.to_device(self, there))
        storage = self.storage.to(there)
        return self if storage is self.storage else Tensor(storage, self._address, self.dtype, self.shape, self.strides)

    def copy_(self, source: Tensor) -> Tensor:
        """Overwrite the elements with those of ``source``, which has the same shape, and return this tensor.

        Other element types are converted; the two may overlap, or lie on different devices.

        Raises:
            TensorError: The shapes differ, or this memory is read-only.
        """
        copies.copy(self, source)
        return self

    def fill_(self, value: float) -> Tensor:
        """Set every element to ``value`` and return this tensor.

        Raises:
            TensorError: This memory is read-only, or the type cannot hold the value.
        """
        copies.fill(self, value)
        return self

    def __reduce__(self) -> tuple[object, tuple[DType, Shape, bytes, Device | None]]:
        # another process has a default device of its own
        device = None if self.device is default_device() else self.device
        return _rebuild, (self.dtype, self.shape, self.to("cpu").contiguous().memoryview().tobytes(), device)

    def __repr__(self) -> str:
        if self.storage.freed:
            return f"Tensor({self.dtype}, shape={self.shape}, freed)"
        with step.paused():
            starts = (layout.offset_of(i, self.shape, self.strides) for i in range(min(self.size, _SHOWN)))
            shown = [self._view(at, (), ()).item() for at in starts]
        values = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in shown)
        where = f"{self.shape}" if self.device.stream is None else f"{self.shape}, {self.device}"
        return f"Tensor({self.dtype}, shape={where}, [{values}{', ...' if self.size > _SHOWN else ''}])"

    # Exchange with other libraries

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """What ``numpy.asarray`` reads: the same memory without a copy, read-only where this tensor is.

        Raises:
            TensorError: The elements are bfloat16, which NumPy lacks; ``.astype("float32")`` first.
            DeviceError: On a GPU; ``.to("cpu")`` first.
        """
        from pio.memory.buffers import array_interface

        return array_interface(self)

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Return a DLPack capsule for another library; see the Python array API standard.

        Raises:
            DeviceError: Another device is asked for, or a stream of the CPU.
            TensorError: The memory is read-only and the consumer too old to be told so.
        """
        from pio.memory.dlpack import export_tensor

        return export_tensor(self, stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's device type and index: the CPU is ``(1, 0)``, the first GPU ``(2, 0)``."""
        return self.device.dlpack

    # Mathematics: pio.ops has the rest

    def __matmul__(self, other: Tensor) -> Tensor:
        return operations().matmul(self, other)

    def softmax(self) -> Tensor:
        """Return ``pio.ops.softmax`` of this tensor, over its last axis."""
        return operations().softmax(self)

    def gelu(self) -> Tensor:
        """Return ``pio.ops.gelu`` of this tensor."""
        return operations().gelu(self)


add_refusals(Tensor)


def _rebuild(dtype: DType, shape: Shape, data: bytes, device: Device | None = None) -> Tensor:
    """Return a tensor of these bytes, such as those of one that was pickled."""
    out = Tensor.empty(shape, dtype, device)
    copies.write(out, data)
    return out
