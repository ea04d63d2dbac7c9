import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.errors import TensorError
from pio.ops.top_k import top_k
from pio.tensor import Tensor
from pio.testing.reference import top_k as reference

# few distinct values, so that ties, infinities and NaN meet in one row
VALUES = st.one_of(
    st.sampled_from([-math.inf, math.inf, math.nan, -0.0, 0.0, 1.5, -2.25]), st.floats(-(2.0**99), 2.0**99, width=32)
)


@given(st.data())
def test_top_k_is_a_stable_sort_cut_short(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 331))
    rows = data.draw(st.integers(1, 3))
    k = data.draw(st.integers(1, n))
    x = data.draw(st.lists(VALUES, min_size=rows * n, max_size=rows * n))
    values, ids = top_k(Tensor.from_list(x).reshape(rows, n), k)
    assert values.shape == ids.shape == (rows, k)
    for r in range(rows):
        expected = reference.top_k(x[r * n : (r + 1) * n], k)
        assert list(zip(values[r].tolist(), ids[r].tolist(), strict=True)) == expected


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("k", [1, 20, 77, 1000])
def test_top_k_of_rows_in_order(order: int, k: int) -> None:
    x = [float(i) for i in range(1000)][::order]
    values, ids = top_k(Tensor.from_list(x), k)
    assert values.tolist() == [float(999 - i) for i in range(k)]
    assert ids.tolist() == ([999 - i for i in range(k)] if order == 1 else list(range(k)))


def test_every_place_of_a_block_is_looked_at() -> None:
    for n in (63, 64, 65, 129):
        for at in range(n):
            x = [0.0] * n
            x[at] = 1.0
            assert top_k(Tensor.from_list(x), 1)[1].tolist() == [at]


@pytest.mark.parametrize("k", [0, 6, -1])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(TensorError, match=r"k=.*expected 1 to 5"):
        top_k(Tensor.zeros((2, 5)), k)


def test_other_types_and_shapes_are_refused() -> None:
    with pytest.raises(TensorError, match="int32"):
        top_k(Tensor.zeros((5,), "int32"), 1)
    with pytest.raises(TensorError, match="shape"):
        top_k(Tensor.zeros((2, 3, 4)), 1)
    with pytest.raises(TensorError, match="strided"):
        top_k(Tensor.zeros((5, 4)).T, 1)


def test_the_input_stays_as_it_is() -> None:
    x = Tensor.from_list([3.0, math.nan, 1.0])
    before = bytes(x.memoryview())
    top_k(x, 2)
    assert bytes(x.memoryview()) == before == struct.pack("3f", 3.0, math.nan, 1.0)
