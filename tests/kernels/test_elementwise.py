import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.ops import _check
from pio.tensor import Tensor
from pio.testing.compare import assert_close
from pio.testing.reference import elementwise as reference
from pio.testing.strategies import SPECIAL, tensors

THREADS = st.sampled_from((1, 2, 3))


@pytest.mark.parametrize("name", ["add", "mul"])
@given(data=st.data(), n=st.integers(0, 90), threads=THREADS, target=st.sampled_from(("new", "x", "y")))
def test_arithmetic(data, name, n, threads, target):
    x, y = data.draw(tensors((n,), special=SPECIAL)), data.draw(tensors((n,), special=SPECIAL))
    expected = getattr(reference, name)(x.tolist(), y.tolist())
    out = {"new": None, "x": x, "y": y}[target]
    found = getattr(ops, name)(x.to(Device("cpu", threads)), y, out=out)
    assert_close(found, expected, relative=6e-8)
    assert out is None or found is out


@pytest.mark.parametrize("op", [ops.add, ops.mul])
def test_arithmetic_refuses_what_does_not_fit(op):
    x = Tensor.zeros((2, 3))
    with pytest.raises(TensorError, match=r"y has shape \(3, 2\), expected \(2, 3\)"):
        op(x, Tensor.zeros((3, 2)))
    with pytest.raises(TensorError, match="y is int32, expected float32"):
        op(x, Tensor.zeros((2, 3), "int32"))
    with pytest.raises(TensorError, match="x is a strided view"):
        op(Tensor.zeros((3, 2)).T, x)


def test_work_is_split_where_each_part_is_worth_a_thread(monkeypatch):
    monkeypatch.setattr(_check, "MIN_PART", 100)
    assert [_check.split(n, Device("cpu", 4)) for n in (0, 99, 199, 200, 399, 400, 10**6)] == [1, 1, 1, 2, 3, 4, 4]
