"""Devices and their names."""

import pytest

from pio import device
from pio.errors import DeviceError
from pio.tensor import Tensor


def test_devices_are_checked_by_name():
    tensor = Tensor.zeros(3)
    assert tensor.to("cpu") is tensor and tensor.device == "cpu"
    assert device.check_device("auto") == "cpu"
    with pytest.raises(DeviceError, match=r"unknown device 'cuda'.*cpu"):
        tensor.to("cuda")


@pytest.mark.parametrize("name", ["Allocation", "MemoryBudget", "memory_errors", "format_bytes"])
def test_a_name_that_moved_says_where_it_is(name):
    with pytest.raises(ImportError, match=rf"pio.device.{name} has moved: import it from pio.memory\."):
        exec(f"from pio.device import {name}")
    with pytest.raises(AttributeError, match="nothing"):
        device.nothing  # noqa: B018
