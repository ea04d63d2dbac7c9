"""DLPack in both directions: tensors of the CPU and of NVIDIA GPUs shared with other libraries without a copy."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from pio import dtypes
from pio.device import DLPACK_TYPES, Device, default_device
from pio.errors import DeviceError, TensorError
from pio.memory import layout, step
from pio.memory.gpu_allocation import Foreign, GpuAllocation
from pio.memory.storage import Storage
from pio.memory.trampolines import compiled, make_immortal
from pio.memory.view import Parts, View

_CPU: Final = (DLPACK_TYPES["cpu"], 0)
_CUDA: Final = DLPACK_TYPES["cuda"]
_KNOWN: Final = f"the CPU, DLPack device {_CPU}, or an NVIDIA GPU, ({_CUDA}, its number)"
_LEGACY: Final = 1  # CUDA's default stream, which a consumer means that names none
_NO_ORDER: Final = -1  # what a consumer says who sees to the order itself
_VERSION: Final = (1, 0)
_READ_ONLY: Final = 1
_IS_COPIED: Final = 2
_MAX_NDIM: Final = 64


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    )


def _name(text: bytes) -> int:
    """Return the address of a C string that is never freed: capsules may outlive this module."""
    buffer = ctypes.create_string_buffer(text)
    make_immortal(buffer)
    return ctypes.addressof(buffer)


_NAMES: Final = {_Managed: _name(b"dltensor"), _Versioned: _name(b"dltensor_versioned")}
_USED_NAMES: Final = {_Managed: _name(b"used_dltensor"), _Versioned: _name(b"used_dltensor_versioned")}


def _api(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new_capsule = _api("PyCapsule_New", ctypes.py_object, *[ctypes.c_void_p] * 3)
_set_context = _api("PyCapsule_SetContext", ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
_is_valid = _api("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
_get_pointer = _api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
_set_name = _api("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
_increase = _api("Py_IncRef", None, ctypes.py_object)


class _Export:
    """A managed struct with all it points to; the one reference that C code holds keeps it alive."""

    __slots__ = ("__weakref__", "managed", "owner", "shape", "strides", "tensor")

    def __init__(self, tensor: View, kind: type[_Managed] | type[_Versioned]) -> None:
        self.tensor, self.owner = tensor, tensor.storage.keep()
        self.shape = (ctypes.c_int64 * tensor.ndim)(*tensor.shape)
        self.strides = (ctypes.c_int64 * tensor.ndim)(*tensor.strides)
        self.managed = kind()
        self.managed.context = id(self)
        view = self.managed.tensor
        view.data, view.ndim = tensor.address, tensor.ndim
        view.device_type, view.device_id = tensor.storage.device.dlpack
        view.code, view.bits = tensor.dtype.dlpack
        view.lanes = 1
        view.shape = ctypes.cast(self.shape, ctypes.POINTER(ctypes.c_int64))
        view.strides = ctypes.cast(self.strides, ctypes.POINTER(ctypes.c_int64))


def export_tensor(
    tensor: View,
    *,
    stream: object,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> object:
    """Return a capsule over the memory of ``tensor``; arguments as in the Python array API standard.

    On a GPU the consumer's stream goes on only when all is done that was asked for by now.

    Raises:
        DeviceError: Another device is asked for, or a stream of the CPU.
        TensorError: The memory is read-only and the consumer too old to be told so.
        RecordingError: This thread records a step.
    """
    step.refuse("shows numbers to another library", step.READS)
    device = tensor.storage.device
    if device.stream is None and stream is not None:
        raise DeviceError(f"the CPU has no streams; pass stream=None, found {stream!r}")
    if dl_device is not None and tuple(dl_device) != device.dlpack:
        where = "the CPU" if device.stream is None else device
        raise DeviceError(
            f"this tensor lies on {where}, DLPack device {device.dlpack}; cannot export it to {tuple(dl_device)}"
        )
    follower = _LEGACY if stream is None else stream
    if not isinstance(follower, int) or follower == 0 or follower < _NO_ORDER:
        raise DeviceError(f"stream is {stream!r}, expected None, -1 or the number of a CUDA stream, but 0")
    kind = _Versioned if max_version is not None and max_version[0] >= _VERSION[0] else _Managed
    if copy:
        tensor = tensor.clone()
    if tensor.readonly and kind is _Managed:
        raise TensorError("read-only memory cannot be exported by unversioned DLPack; pass copy=True or a .clone()")
    export = _Export(tensor, kind)
    if device.stream is not None:
        if isinstance(export.owner, GpuAllocation | Foreign):
            export.owner.shared = True
        if follower != _NO_ORDER:
            device.stream.let_follow(follower)
    managed = export.managed
    name = _NAMES[kind]
    code = compiled(name, kind.context.offset)
    managed.deleter = code.deleter
    if isinstance(managed, _Versioned):
        managed.major, managed.minor = _VERSION
        managed.flags = (_READ_ONLY if tensor.readonly else 0) | (_IS_COPIED if copy else 0)
    capsule = _new_capsule(ctypes.addressof(managed), name, code.capsule_destructor)
    _increase(export)  # from here on the capsule owns it, and after the capsule whoever consumes it
    _set_context(capsule, id(export))
    return capsule


class _Import:
    """Another library's managed struct, given back to it when this dies."""

    __slots__ = ("__weakref__", "_address", "_deleter")

    def __init__(self, managed: _Managed | _Versioned) -> None:
        self._address = ctypes.addressof(managed)
        self._deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.deleter) if managed.deleter else None

    def release(self) -> None:
        """Give it back, once."""
        deleter, self._deleter = self._deleter, None
        if deleter is not None:
            deleter(self._address)

    def __del__(self) -> None:
        self.release()


def import_tensor(source: object) -> Parts:
    """Return the parts of a tensor over the memory of an object with ``__dlpack__``, which lives on with it.

    Raises:
        DeviceError: The memory is neither the CPU's nor an NVIDIA GPU's, or pio cannot use that GPU.
        TensorError: The object cannot be exported, or its layout or element type cannot be represented.
        RecordingError: This thread records a step.
    """
    step.refuse(f"takes the memory of a {type(source).__name__}", step.WRITES)
    device = _device_of(source)
    capsule = _capsule_of(source, device)
    kind = next((kind for kind, name in _NAMES.items() if _is_valid(capsule, name)), None)
    if kind is None:
        raise TensorError(f"the __dlpack__ of a {type(source).__name__} returned {capsule!r}, no unused DLPack capsule")
    managed = kind.from_address(_get_pointer(capsule, _NAMES[kind]))
    if isinstance(managed, _Versioned) and managed.major != _VERSION[0]:
        raise TensorError(f"DLPack {managed.major}.{managed.minor} is not understood; pio reads version 1")
    readonly = isinstance(managed, _Versioned) and bool(managed.flags & _READ_ONLY)
    parts = _describe(managed.tensor, readonly, device)  # all checks come before the capsule is taken over
    owner, stream = _Import(managed), parts.storage.device.stream
    parts.storage.owner = owner if stream is None else Foreign(stream, owner.release)
    _set_name(capsule, _USED_NAMES[kind])
    return parts


def _device_of(source: Any) -> Device:
    """Return the device on which ``source`` says that its memory lies."""
    if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
        raise TensorError(f"a {type(source).__name__} has no __dlpack__; use from_buffer or from_list")
    kind, number = (int(part) for part in source.__dlpack_device__())
    if kind == _CPU[0]:
        return default_device()
    if kind == _CUDA:
        return Device(f"cuda:{number}")
    raise DeviceError(f"from_dlpack reads memory of {_KNOWN}; found {(kind, number)}: copy it to the CPU first")


def _capsule_of(source: Any, device: Device) -> object:
    """Ask ``source`` for a capsule, in the new protocol and then in the old one."""
    asked: dict[str, Any] = {} if device.stream is None else {"stream": device.stream.handle}
    try:
        try:
            return source.__dlpack__(max_version=_VERSION, **asked)
        except TypeError:  # written before the protocol had versions
            return source.__dlpack__(**asked)
    except BufferError as error:
        raise TensorError(f"a {type(source).__name__} refuses to be shared by DLPack: {error}") from error


def _describe(view: _DLTensor, readonly: bool, device: Device) -> Parts:
    """Return the parts of a tensor over what ``view`` describes, not yet owned by anything."""
    kind, number = device.dlpack
    if view.device_type != kind or (device.stream is not None and view.device_id != number):
        raise DeviceError(
            f"a DLPack tensor lies on a device of type {view.device_type}, number {view.device_id}, and its owner says "
            f"{device.dlpack}"
        )
    dtype = dtypes.from_dlpack(view.code, view.bits) if view.lanes == 1 else None
    if dtype is None:
        found = f"code {view.code}, {view.bits} bits, {view.lanes} lanes"
        raise TensorError(f"no element type for DLPack's {found}; convert it to one of {dtypes.ALL}")
    if not 0 <= view.ndim <= _MAX_NDIM:
        raise TensorError(f"a DLPack tensor has {view.ndim} dimensions; at most {_MAX_NDIM} are possible")
    shape = layout.check_shape(view.shape[: view.ndim] if view.ndim else ())
    strides = tuple(view.strides[: view.ndim]) if view.ndim and view.strides else layout.row_major(shape)
    address = (view.data or 0) + view.byte_offset
    low, high = layout.span(shape, strides)
    size = dtype.itemsize
    storage = Storage(address + low * size, (high - low) * size, None, readonly, device)
    return Parts(storage, address, dtype, shape, strides)
