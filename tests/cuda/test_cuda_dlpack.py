"""Memory that a GPU's tensors share with other libraries, in the order of their streams."""

import ctypes
import gc
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from pio.device import Device
from pio.errors import DeviceError
from pio.tensor import Tensor

sys.path.append(str(Path(__file__).parent.parent / "memory"))
from test_dlpack import NAMES, Managed, Producer, View, capsule_name, capsule_pointer


def exported(capsule):
    return Managed.from_address(capsule_pointer(capsule, NAMES[Managed]))


def test_an_export_orders_the_consumers_stream(driver):
    tensor = Tensor.from_list([[1, 2, 3], [4, 5, 6]], device="cuda")
    assert tensor.__dlpack_device__() == (2, 0)
    driver.calls.clear()
    capsule = tensor.T.__dlpack__(stream=None)
    assert {"event", "wait_event", "end_event"} <= set(driver.calls)
    view = exported(capsule).view
    assert (view.data, view.device_type, view.device_id) == (tensor.address, 2, 0)
    assert (list(view.shape[:2]), list(view.strides[:2])) == ([3, 2], [1, 3])
    assert ctypes.string_at(view.data, 24) == tensor.to("cpu").memoryview().tobytes()  # done by then
    for stream in (1, 2, Device("cuda").stream.handle):
        assert tensor.__dlpack__(stream=stream) is not None
    driver.calls.clear()
    assert tensor.__dlpack__(stream=-1) is not None and "event" not in driver.calls
    for stream in (0, -2, "one"):
        with pytest.raises(DeviceError, match="stream is"):
            tensor.__dlpack__(stream=stream)
    with pytest.raises(DeviceError, match=r"lies on cuda:0, DLPack device \(2, 0\); cannot export it to \(1, 0\)"):
        tensor.__dlpack__(dl_device=(1, 0))


def test_memory_that_others_got_is_freed_behind_their_work(driver):
    tensor = Tensor.from_list([1, 2], device="cuda")
    capsule = tensor.__dlpack__()
    stream = tensor.device.stream
    del tensor
    stream.wait()
    assert stream.held and "free" not in driver.calls
    del capsule
    driver.calls.clear()
    stream.wait()
    assert [call for call in driver.calls if call in ("wait_all", "free")] == ["wait_all", "free"]


class GpuProducer(Producer):
    """Six int32 of another library on the GPU."""

    def __init__(self, kind=Managed):
        self.there = Tensor.from_list([10, 11, 12, 13, 14, 15], "int32", "cuda")
        super().__init__(kind, data=self.there.address, device_type=2, device_id=0)
        self.asked = []

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream):
        self.asked.append(stream)
        return self.capsule


def test_an_import_shares_memory_and_is_given_back_behind_all_work(driver):
    producer = GpuProducer()
    tensor = Tensor.from_dlpack(producer)
    stream = tensor.device.stream
    assert producer.asked == [stream.handle] and capsule_name(producer.capsule) == b"used_" + NAMES[Managed]
    tensor[1, 2].fill_(-7)
    assert (tensor.device, tensor.tolist()) == ("cuda:0", [[10, 11, 12], [13, 14, -7]])
    tensor.fill_(3)  # under way as it dies
    del tensor
    gc.collect()
    assert producer.deleted == []
    stream.wait()
    assert producer.deleted == [ctypes.addressof(producer.managed)] and producer.there.tolist() == [3] * 6


def test_a_round_trip(driver):
    tensor = Tensor.from_list([[1, 2], [3, 4]], device="cuda")
    again = Tensor.from_dlpack(tensor)
    assert again.address == tensor.address and again.device is tensor.device
    again[0].fill_(0)
    del again
    assert tensor.tolist() == [[0, 0], [3, 4]]
    lying = Producer(device_type=2)  # its capsule says another device than it does
    with pytest.raises(DeviceError, match="type 2"):
        Tensor.from_dlpack(lying)
    assert isinstance(lying.managed.view, View)
