"""The largest elements of rows on a GPU beside those of the CPU."""

import random

import pytest
from gpu_case import bytes_of, run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.dtypes import int32
from pio.kernels.cuda import top_k
from pio.tensor import Tensor
from pio.testing.strategies import SPECIAL, tensors


def check(x, k, multiprocessors=2):
    rows, n = x.shape
    values, ids = Tensor.full((rows, k), 7.0), Tensor.full((rows, k), 7, int32)
    maxima = Tensor.full((rows, -(-n // 64)), float("nan"))
    run(top_k.top_k_rows, values, ids, x, maxima, rows, n, k, reading=(x,), multiprocessors=multiprocessors)
    right, places = ops.top_k(x, k)
    assert bytes_of(values) == bytes_of(right)
    assert bytes_of(ids) == bytes_of(places)


@settings(max_examples=10)
@given(rows=st.integers(1, 4), n=st.sampled_from((1, 7, 64, 65, 300, 1000, 1029)), data=st.data())
def test_top_k(rows, n, data):
    x = data.draw(tensors((rows, n), special=SPECIAL))
    if data.draw(st.booleans()):  # many equals
        x = Tensor.from_list([float(round(v)) if abs(v) < 1e9 else v for v in x.reshape(-1).tolist()]).reshape(rows, n)
    check(x, data.draw(st.sampled_from((1, min(n, 5), n))), data.draw(st.integers(1, 3)))


@pytest.mark.parametrize("k", [1, 40, 300, 2100, 5000])
def test_more_equals_than_are_sorted_together(k):
    source = random.Random(1)
    values = [float(source.choice((0.5, 0.5, 0.5, 1.5))) for _ in range(9000)]
    for place in range(0, 9000, 7):
        values[place] = source.gauss(0.0, 2.0)
    check(Tensor.from_list(values).reshape(1, 9000), k, 1)
