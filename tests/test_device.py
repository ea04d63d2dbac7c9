"""Devices: names that carry what operations need, on everything that is made of a tensor."""

import copy
import pickle

import pytest

from pio import device, ops
from pio.device import Device, default_device, on_device
from pio.errors import DeviceError
from pio.machine import thread_count
from pio.memory.arena import Arena
from pio.memory.storage import Storage
from pio.tensor import Tensor


def test_a_device_is_its_name():
    one = Device("cpu", threads=1)
    assert (one, f"{one}", f"{one!r}", {"cpu": 3}[one]) == ("cpu", "cpu", "'cpu'", 3)
    assert one == Device("cpu", 5) and (one.kind, one.ordinal, one.threads, one.dlpack) == ("cpu", 0, 1, (1, 0))
    assert Device("cpu", 1) is one is pickle.loads(pickle.dumps(one)) is copy.deepcopy(one)
    with pytest.raises(AttributeError, match="make another"):
        one.threads = 2
    with pytest.raises(DeviceError, match="threads is 0, expected 1 or more"):
        Device("cpu", 0)


def test_the_default_device_has_all_cores():
    assert default_device() is Device("cpu") is on_device(None) is on_device("auto") is on_device("cpu")
    assert default_device().threads == thread_count()
    assert Tensor.zeros(3).device is Storage(0, 0, None).device is default_device()


def test_devices_are_checked_by_name():
    tensor = Tensor.zeros(3, device=Device("cpu", 7))
    assert tensor.to("cpu") is tensor.to("auto") is tensor and tensor.device == "cpu"
    for attempt in (tensor.to, Device, on_device, lambda name: Tensor.zeros(3, device=name)):
        with pytest.raises(DeviceError, match=r"unknown device 'tpu'.*cpu"):
            attempt("tpu")


def test_a_tensor_on_another_device_is_the_same_memory():
    tensor = Tensor.from_buffer(b"\1\2\3\4", "int8")
    there = tensor.to(Device("cpu", 7))
    assert (there.device.threads, tensor.device) == (7, default_device())
    assert there.address == tensor.address and there.readonly and there.to(there.device) is there
    address = tensor.address
    del tensor
    assert there[1:].address == address + 1 and there.tolist() == [1, 2, 3, 4]


def test_views_and_copies_keep_the_device():
    there = Device("cpu", 7)
    t = Tensor.from_list([[1, 2, 3], [4, 5, 6]], device=there)
    made = [t[:1], t.T, t.reshape(-1), t.clone(), t.T.contiguous(), t.astype("int32"), copy.deepcopy(t), *t]
    made += [pickle.loads(pickle.dumps(t)), Tensor.full(2, 1.5, device=there), Arena(64, device=there).take((3,))]
    assert all(x.device is there for x in made)
    assert Tensor.from_dlpack(t).device is pickle.loads(pickle.dumps(t.to(Device("cpu")))).device is default_device()


def test_results_are_where_the_first_tensor_is():
    there = Device("cpu", 7)
    x, w = Tensor.full((2, 32), 0.5, device=there), Tensor.full((32, 32), 0.25)
    packed = ops.pack(w.to(there), "int8")
    results = [ops.linear(x, w), ops.matmul(x, w), ops.softmax(x), ops.rms_norm(x, w[0], 1e-6), ops.swiglu(x, x)]
    results += [packed.data, ops.unpack(packed), ops.quantized_linear(x, packed), *ops.top_k(x, 3)]
    assert all(y.device is there for y in results)
    assert packed.to(there) is packed and packed.to(Device("cpu", 1)).data.device.threads == 1


@pytest.mark.parametrize("name", ["Allocation", "MemoryBudget", "memory_errors", "format_bytes", "check_device"])
def test_a_name_that_moved_says_where_it_is(name):
    with pytest.raises(ImportError, match=rf"pio.device.{name} has moved: import it from pio\."):
        exec(f"from pio.device import {name}")
    with pytest.raises(AttributeError, match="nothing"):
        device.nothing  # noqa: B018
