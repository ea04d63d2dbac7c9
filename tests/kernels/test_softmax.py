import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core import config

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close
from pio.testing.reference import softmax as reference
from pio.testing.strategies import sizes, tensors

THREADS = st.sampled_from((1, 2, 3))


@given(data=st.data(), shape=sizes((0, 6), (1, 120)), threads=THREADS, in_place=st.booleans())
def test_softmax(data, shape, threads, in_place):
    x = data.draw(tensors(shape, special=(-math.inf, math.inf, math.nan, -3e38)))
    expected = reference.softmax(x.tolist())
    found = ops.softmax(x.to(Device("cpu", threads)), out=x if in_place else None)
    assert_close(found, expected, relative=2e-5, absolute=1e-37)
    assert found is x or not in_place


@given(data=st.data(), shape=sizes((1, 6), (1, 120)))
def test_rows_are_probabilities(data, shape):
    x = data.draw(tensors(shape, special=(-math.inf,)))
    for row, given_row in zip(ops.softmax(x).tolist(), x.tolist(), strict=True):
        if max(given_row) > -math.inf:
            assert math.fsum(row) == pytest.approx(1.0, abs=1e-6)
            assert min(row) >= 0.0
            assert all((p == 0.0) or v > -math.inf for p, v in zip(row, given_row, strict=True))


@given(data=st.data(), n=st.integers(1, 90), shift=st.integers(-8, 8))
def test_adding_to_a_row_changes_nothing(data, n, shift):
    x = Tensor.from_list([float(v) for v in data.draw(st.lists(st.integers(-50, 50), min_size=n, max_size=n))])
    shifted = Tensor.from_list([v + shift for v in x.tolist()])  # whole numbers: the shift is exact
    assert ops.softmax(x).tolist() == ops.softmax(shifted).tolist()


def test_masked_rows():
    inf, nan = math.inf, math.nan
    rows = [[-inf] * 19 + [2.0], [-inf] * 20, [0.0] * 19 + [inf], [nan] + [0.0] * 19, [1.0] * 20]
    found = ops.softmax(Tensor.from_list(rows)).tolist()
    assert found[0] == [0.0] * 19 + [1.0]
    assert all(math.isnan(v) for row in found[1:4] for v in row)
    assert_close(found[4], [0.05] * 20, relative=1e-6)


def test_a_row_as_long_as_a_vocabulary():
    n = 1519 if config.DISABLE_JIT else 151_936
    found = ops.softmax(Tensor.from_list([float(i % 5) for i in range(n)])).tolist()
    total = math.fsum(math.exp(i % 5 - 4) for i in range(n))
    assert_close(found[:7], [math.exp(i % 5 - 4) / total for i in range(7)], relative=2e-6)
    assert math.fsum(found) == pytest.approx(1.0, abs=2e-6)


def test_shapes():
    assert ops.softmax(Tensor.zeros((2, 3, 5))).shape == (2, 3, 5)
    assert ops.softmax(Tensor.zeros((3, 0))).shape == (3, 0)
    assert ops.softmax(Tensor.zeros((4,))).tolist() == [0.25] * 4
    with pytest.raises(TensorError, match="at least one axis"):
        ops.softmax(Tensor.zeros(()))
    with pytest.raises(TensorError, match="strided view"):
        ops.softmax(Tensor.zeros((4, 6))[:, ::2])
    with pytest.raises(TensorError, match="x is float16, expected float32"):
        ops.softmax(Tensor.zeros((4, 6), "float16"))
