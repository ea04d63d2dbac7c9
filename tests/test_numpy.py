"""Tensors as NumPy arrays and as Python numbers: what users of array libraries expect to work."""

import gc

import pytest

import pio
from pio.memory.allocation import allocated_bytes
from pio.tensor import Tensor

np = pytest.importorskip("numpy")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32", "int64"])
def test_an_array_shares_the_memory(dtype):
    tensor = Tensor.from_list([[1, 2, 3], [4, 5, 6]], dtype)
    array = np.asarray(tensor)
    assert (array.dtype.name, array.shape, array.tolist()) == (dtype, (2, 3), [[1, 2, 3], [4, 5, 6]])
    array[1, 0] = 9
    assert tensor[1, 0].item() == 9 and array.flags.writeable
    assert np.asarray(tensor.T[::-1, 1:]).tolist() == [[6], [5], [9]]


def test_arrays_without_elements_and_without_axes():
    assert np.asarray(Tensor.empty((3, 0))).shape == (3, 0)
    assert np.asarray(Tensor.from_list(2.5)).item() == 2.5


def test_an_array_keeps_the_memory():
    tensor = Tensor.full((1 << 19,), 3.0)
    array = np.asarray(tensor)
    gc.collect()  # what other tests have left
    held = allocated_bytes()
    del tensor
    gc.collect()
    assert allocated_bytes() == held and array[-1] == 3.0


def test_read_only_memory_gives_a_read_only_array():
    array = np.asarray(Tensor.from_buffer(bytes(8), "float32"))
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1.0


def test_bfloat16_says_what_to_do():
    tensor = Tensor.from_list([1.5, -2.0], "bfloat16")
    with pytest.raises(pio.TensorError, match=r"no bfloat16; .*astype\(.float32.\)"):
        np.asarray(tensor)
    assert np.asarray(tensor.astype("float32")).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_is_a_number(shape):
    real, whole = Tensor.full(shape, -2.75, "bfloat16"), Tensor.full(shape, 3, "int32")
    assert (float(real), int(real), bool(real), float(whole)) == (-2.75, -2, True, 3.0)
    assert "abcde"[whole] == "d" and list(range(whole)) == [0, 1, 2] and not Tensor.zeros(shape)


@pytest.mark.parametrize("convert", [float, int, bool])
def test_several_elements_are_no_number(convert):
    with pytest.raises(pio.TensorError, match=r"shape \(2,\)"):
        convert(Tensor.zeros((2,)))


def test_a_float_is_no_index():
    with pytest.raises(pio.TensorError, match=r"float32 tensor is no index; call int\(\)"):
        "abc"[Tensor.full((), 1.0)]
