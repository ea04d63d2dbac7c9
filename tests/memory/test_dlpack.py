"""DLPack in both directions, against NumPy, PyTorch and a producer made by hand."""

import ctypes
import gc
import subprocess
import sys
import weakref

import pytest

from pio.dtypes import ALL, bfloat16, float32, int32, int64
from pio.errors import DeviceError, TensorError
from pio.memory.allocation import allocated_bytes
from pio.tensor import Tensor


def settled_bytes():
    gc.collect()  # what earlier tests left in cycles must not vanish during this one
    return allocated_bytes()


class View(ctypes.Structure):
    _fields_ = [
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
    ]


class Managed(ctypes.Structure):
    _fields_ = [("view", View), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("view", View),
    ]


NAMES = {Managed: b"dltensor", Versioned: b"dltensor_versioned"}
new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Producer:
    """Six int32 in memory, described by a struct whose fields a test may bend."""

    def __init__(self, kind=Managed, shape=(2, 3), strides=None, flags=0, major=1, **fields):
        self.data = (ctypes.c_int32 * 6)(10, 11, 12, 13, 14, 15)
        self.lengths = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self.steps = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        self.deleted = []
        self.deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.deleted.append)
        self.managed = kind()
        self.managed.deleter = ctypes.cast(self.deleter, ctypes.c_void_p).value
        if kind is Versioned:
            self.managed.flags, self.managed.major = flags, major
        view = self.managed.view
        view.data, view.ndim, view.device_type, view.lanes = ctypes.addressof(self.data), len(shape), 1, 1
        view.code, view.bits = int32.dlpack
        view.shape = ctypes.cast(self.lengths, ctypes.POINTER(ctypes.c_int64))
        if self.steps is not None:
            view.strides = ctypes.cast(self.steps, ctypes.POINTER(ctypes.c_int64))
        for name, value in fields.items():
            setattr(view, name, value)
        self.capsule = new_capsule(ctypes.addressof(self.managed), NAMES[kind], None)

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self):  # the old protocol: no max_version
        return self.capsule


@pytest.mark.parametrize("kind", [Managed, Versioned])
def test_an_import_shares_memory_and_deletes_exactly_once(kind):
    producer = Producer(kind)
    tensor = Tensor.from_dlpack(producer)
    assert capsule_name(producer.capsule) == b"used_" + NAMES[kind]
    assert tensor.tolist() == [[10, 11, 12], [13, 14, 15]]
    assert (tensor.dtype, tensor.strides, tensor.readonly) == (int32, (3, 1), False)
    tensor[1, 2].fill_(-7)
    assert producer.data[5] == -7
    view = tensor[1:, ::2]
    del tensor
    assert producer.deleted == []
    assert view.tolist() == [[13, -7]]
    del view
    assert producer.deleted == [ctypes.addressof(producer.managed)]


def test_an_import_without_a_deleter():
    producer = Producer()
    producer.managed.deleter = None
    assert Tensor.from_dlpack(producer).tolist() == [[10, 11, 12], [13, 14, 15]]


def test_an_import_with_strides_offset_and_no_axes():
    producer = Producer(shape=(3, 2), strides=(-1, 3), byte_offset=8)
    assert Tensor.from_dlpack(producer).tolist() == [[12, 15], [11, 14], [10, 13]]
    assert Tensor.from_dlpack(Producer(shape=(), byte_offset=16)).item() == 14
    empty = Tensor.from_dlpack(Producer(shape=(5, 0, 3), data=None))
    assert (empty.shape, empty.tolist()) == ((5, 0, 3), [[], [], [], [], []])


def test_an_imported_read_only_flag_is_kept():
    tensor = Tensor.from_dlpack(Producer(Versioned, flags=1))
    assert tensor.readonly
    with pytest.raises(TensorError, match="read-only"):
        tensor.fill_(0)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"lanes": 2}, TensorError, "2 lanes"),
        ({"bits": 64, "code": 2}, TensorError, "code 2, 64 bits"),
        ({"device_type": 2}, DeviceError, "type 2"),
        ({"ndim": 65}, TensorError, "65 dimensions"),
        ({"ndim": -1}, TensorError, "-1 dimensions"),
        ({"shape": (2, -3)}, TensorError, "negative"),
        ({"kind": Versioned, "major": 2}, TensorError, r"DLPack 2\.0"),
    ],
)
def test_what_cannot_be_imported_stays_with_its_producer(fields, error, words):
    producer = Producer(**fields)
    with pytest.raises(error, match=words):
        Tensor.from_dlpack(producer)
    assert capsule_name(producer.capsule) == NAMES[type(producer.managed)]
    assert producer.deleted == []


def test_a_capsule_is_consumed_once():
    producer = Producer()
    tensor = Tensor.from_dlpack(producer)
    with pytest.raises(TensorError, match="no unused DLPack capsule"):
        Tensor.from_dlpack(producer)
    assert tensor.tolist()[0] == [10, 11, 12]


def test_import_errors_name_the_reason():
    class Elsewhere(Producer):
        def __dlpack_device__(self):
            return (10, 1)

    class Refusing(Producer):
        def __dlpack__(self, max_version=None):
            raise BufferError("it has a gradient")

    class Confused(Producer):
        def __dlpack__(self, max_version=None):
            return "no capsule"

    for producer, error, words in [
        (Elsewhere(), DeviceError, r"\(10, 1\)"),
        (Refusing(), TensorError, "it has a gradient"),
        (Confused(), TensorError, "no capsule"),
        ([1, 2], TensorError, "a list has no __dlpack__"),
    ]:
        with pytest.raises(error, match=words):
            Tensor.from_dlpack(producer)


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3)])
def test_an_unconsumed_capsule_leaks_nothing(version):
    before = settled_bytes()
    tensor = Tensor.zeros((3, 5))
    capsule = tensor.__dlpack__(max_version=version)
    assert capsule_name(capsule) == (NAMES[Versioned] if version and version[0] else NAMES[Managed])
    storage = weakref.ref(tensor.storage)
    del tensor
    assert storage() is not None
    del capsule
    assert storage() is None
    assert allocated_bytes() == before


def fail(*_):
    raise ZeroDivisionError


def test_a_capsule_dies_quietly_while_an_exception_is_pending():
    before = settled_bytes()
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            fail(Tensor.zeros((2, 3)).__dlpack__(), Tensor.zeros(3).__dlpack__(max_version=(1, 0)), fail())
    gc.collect()
    assert allocated_bytes() == before


@pytest.mark.parametrize("kind", [Managed, Versioned])
def test_what_an_export_says(kind):
    tensor = Tensor.from_list([[1, 2, 3], [4, 5, 6]], bfloat16)[::-1, ::2]
    capsule = tensor.__dlpack__(max_version=(1, 0) if kind is Versioned else None)
    managed = kind.from_address(capsule_pointer(capsule, NAMES[kind]))
    view = managed.view
    assert (view.data, view.ndim, view.code, view.bits, view.lanes) == (tensor.address, 2, 4, 16, 1)
    assert (view.shape[:2], view.strides[:2], view.byte_offset) == ([2, 2], [-3, 2], 0)
    assert (view.device_type, view.device_id) == tensor.__dlpack_device__() == (1, 0)
    if kind is Versioned:
        assert (managed.major, managed.minor, managed.flags) == (1, 0, 0)


def test_a_consumed_export_lives_until_its_deleter_is_called():
    before = settled_bytes()
    tensor = Tensor.from_list([5, 6, 7])
    other = Tensor.from_dlpack(tensor)
    assert other.address == tensor.address
    del tensor
    assert other.tolist() == [5, 6, 7]
    again = Tensor.from_dlpack(other)[1:]
    del other
    assert again.tolist() == [6, 7]
    del again
    assert allocated_bytes() == before


def test_read_only_memory_needs_a_consumer_that_is_told():
    tensor = Tensor.from_buffer(b"abcd")
    with pytest.raises(TensorError, match="copy=True"):
        tensor.__dlpack__()
    capsule = tensor.__dlpack__(max_version=(1, 0))
    assert Versioned.from_address(capsule_pointer(capsule, NAMES[Versioned])).flags == 1
    assert Tensor.from_dlpack(tensor).readonly
    copied = tensor.__dlpack__(max_version=(1, 0), copy=True)
    managed = Versioned.from_address(capsule_pointer(copied, NAMES[Versioned]))
    assert managed.flags == 2 and managed.view.data != tensor.address
    assert ctypes.string_at(managed.view.data, 4) == b"abcd"
    assert tensor.__dlpack__(copy=True) is not None


def test_exports_stay_on_the_cpu():
    tensor = Tensor.zeros(3)
    assert tensor.__dlpack__(dl_device=(1, 0), copy=False) is not None
    with pytest.raises(DeviceError, match=r"\(2, 0\)"):
        tensor.__dlpack__(dl_device=(2, 0))
    with pytest.raises(DeviceError, match="stream"):
        tensor.__dlpack__(stream=1)


@pytest.mark.parametrize("dtype", [d for d in ALL if d is not bfloat16], ids=str)
def test_numpy_both_ways(dtype):
    np = pytest.importorskip("numpy")
    before = settled_bytes()
    tensor = Tensor.from_list([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]], dtype)
    expected = np.arange(1, 16).reshape(3, 5)
    array = np.from_dlpack(tensor[::-1, 1::2].T)
    assert array.dtype.name == dtype.name and array.flags.writeable
    assert np.array_equal(array, expected[::-1, 1::2].T)
    array[1, 0] = 99
    assert tensor[2, 3].item() == 99
    back = Tensor.from_dlpack(array)
    del tensor, array
    assert back.tolist() == [[12, 7, 2], [99, 9, 4]]
    assert back.dtype is dtype
    del back
    assert allocated_bytes() == before


def test_numpy_read_only_and_refused_types():
    np = pytest.importorskip("numpy")
    before = settled_bytes()
    array = np.arange(7, dtype=np.int64)
    array.flags.writeable = False
    tensor = Tensor.from_dlpack(array)
    assert tensor.readonly and tensor.dtype is int64 and tensor.tolist() == list(range(7))
    assert not np.from_dlpack(tensor).flags.writeable
    with pytest.raises(TensorError, match="64 bits"):
        Tensor.from_dlpack(np.zeros(3))
    for _ in range(5):  # NumPy has no bfloat16 and drops our capsule with its own error pending
        with pytest.raises((RuntimeError, BufferError), match="dtype"):
            np.from_dlpack(Tensor.zeros((2, 3), bfloat16))
    assert allocated_bytes() == before


def test_numpy_frees_from_other_threads():
    np = pytest.importorskip("numpy")
    import threading

    before = settled_bytes()

    def work():
        for i in range(100):
            np.from_dlpack(Tensor.zeros((i % 5, 3)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert allocated_bytes() == before


def test_shared_memory_outlives_the_interpreter_quietly():
    pytest.importorskip("numpy")
    script = (
        "import sys, numpy as np; from pio.tensor import Tensor\n"
        "kept = np.from_dlpack(Tensor.zeros((3, 5))); other = Tensor.from_dlpack(np.zeros(7, 'f4'))\n"
        "capsule = Tensor.zeros(2).__dlpack__(); wrapped = Tensor.from_buffer(bytearray(9))\n"
        "sys.kept = kept, other, capsule, wrapped, Tensor.zeros(1 << 20)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_torch_both_ways(dtype):
    torch = pytest.importorskip("torch")
    before = settled_bytes()
    tensor = Tensor.from_list([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], dtype)
    there = torch.from_dlpack(tensor[1:, ::2].T)
    assert there.dtype == getattr(torch, dtype.name)
    assert there.tolist() == [[4, 7, 10], [6, 9, 12]]
    there[1, 2] = 77
    assert tensor[3, 2].item() == 77
    back = Tensor.from_dlpack(there)
    del tensor, there
    assert back.tolist() == [[4, 7, 10], [6, 9, 77]] and back.dtype is dtype
    del back
    gc.collect()
    assert allocated_bytes() == before


def test_torch_strides_empty_and_gradients():
    torch = pytest.importorskip("torch")
    source = torch.arange(30, dtype=torch.float32).reshape(5, 6)
    tensor = Tensor.from_dlpack(source[1::2, :].T)
    assert (tensor.shape, tensor.strides, tensor.dtype) == ((6, 2), (1, 12), float32)
    assert tensor.tolist() == source[1::2, :].T.tolist()
    wide = Tensor.from_dlpack(source[0, 0].expand(4, 3))
    assert (wide.strides, wide.tolist()) == ((0, 0), [[0.0] * 3] * 4)
    assert Tensor.from_dlpack(torch.zeros(3, 0)).tolist() == [[], [], []]
    assert torch.from_dlpack(Tensor.zeros((2, 0, 5))).shape == (2, 0, 5)
    with pytest.raises(TensorError, match="grad"):
        Tensor.from_dlpack(torch.zeros(3, requires_grad=True))
