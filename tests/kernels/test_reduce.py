import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.reference import reduce as reference
from pio.testing.strategies import FLOATS, tensors

THREADS = st.sampled_from((1, 2, 3))


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), n=st.integers(0, 700), threads=THREADS, bad=st.sampled_from((math.nan, math.inf, -math.inf)))
def test_first_non_finite(data, dtype, n, threads, bad):
    x = data.draw(tensors((n,), dtype))
    assert ops.first_non_finite(x.to(Device("cpu", threads))) is None
    places = data.draw(st.lists(st.integers(0, n - 1), max_size=3)) if n else []
    for place in places:
        x[place : place + 1].fill_(bad)
    assert ops.first_non_finite(x.to(Device("cpu", threads))) == reference.first_non_finite(x.tolist())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_position_is_looked_at(dtype, threads):
    for n, places in [(1, (0,)), (45, range(45)), (600, (0, 15, 16, 255, 256, 287, 288, 511, 512, 575, 576, 599))]:
        wide = Tensor.full((n + 40,), math.inf, dtype)  # what lies around must not be seen
        x = wide[20 : 20 + n].fill_(1.0)
        assert ops.first_non_finite(x.to(Device("cpu", threads))) is None
        for place in places:
            x[place : place + 1].fill_(math.nan)
            assert ops.first_non_finite(x.to(Device("cpu", threads))) == place
            x[place : place + 1].fill_(1.0)


def test_the_largest_numbers_are_finite():
    assert ops.first_non_finite(Tensor.full((400,), 3.4e38)) is None
    assert ops.first_non_finite(Tensor.full((400,), 65504.0, "float16")) is None
    assert ops.first_non_finite(Tensor.full((2, 200), 3e38, "bfloat16")) is None
    assert ops.first_non_finite(Tensor.zeros((0, 3))) is None


def test_first_non_finite_refuses_integers_and_gaps():
    with pytest.raises(TensorError, match="t is int8, expected one of"):
        ops.first_non_finite(Tensor.zeros((3,), "int8"))
    with pytest.raises(TensorError, match="strided view"):
        ops.first_non_finite(Tensor.zeros((3, 4))[:, ::2])
