import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import linear as reference
from pio.testing.strategies import FLOATS, sizes, tensors

THREADS = st.sampled_from((1, 2, 3))


def magnitudes(rows, factor=1.0):
    return [[abs(v) * factor for v in row] for row in rows]


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((1, 11), (1, 40), (1, 70)), biased=st.booleans(), add=st.booleans(), threads=THREADS)
def test_linear(data, dtype, shape, biased, add, threads):
    rows, k, n = shape
    x, weight = data.draw(tensors((rows, k))), data.draw(tensors((n, k), dtype))
    bias = data.draw(tensors((n,), dtype)) if biased else None
    out = data.draw(tensors((rows, n)))
    before = out.tolist()
    bias_list = bias.tolist() if bias is not None else None
    expected = reference.linear(x.tolist(), weight.tolist(), bias_list, before if add else None)
    slack = reference.linear(
        magnitudes(x.tolist(), 1e-6),
        magnitudes(weight.tolist()),
        None if bias_list is None else [abs(b) * 1e-6 for b in bias_list],
        magnitudes(before, 1e-6) if add else None,
    )
    assert ops.linear(x.to(Device("cpu", threads)), weight, bias, out=out, add=add) is out
    assert_close(out, expected, absolute=slack)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("rows", "k", "n"), [(1, 16, 7), (4, 5, 6), (5, 17, 48), (67, 3, 49), (130, 2, 13), (3, 33, 100), (64, 1, 96)]
)
def test_edges_of_tiles_and_row_blocks(rows, k, n, threads):
    x = Tensor.from_list([[float((7 * i + 3 * j) % 11 - 5) for j in range(k)] for i in range(rows)])
    weight = Tensor.from_list([[float((5 * i + 2 * j) % 13 - 6) for j in range(k)] for i in range(n)], "bfloat16")
    found = ops.linear(x.to(Device("cpu", threads)), weight)
    assert found.tolist() == reference.linear(x.tolist(), weight.tolist()), "small whole numbers multiply exactly"


@given(data=st.data(), shape=sizes((1, 6), (1, 40), (2, 60)))
def test_outputs_do_not_depend_on_how_many_there_are(data, shape):
    rows, k, n = shape
    x, weight = data.draw(tensors((rows, k))), data.draw(tensors((n, k), "float16"))
    first = data.draw(st.integers(0, n - 1))
    assert bits(ops.linear(x, weight)[:, first:]) == bits(ops.linear(x, weight[first:]))


def test_infinity_and_nan_stay_in_their_row():
    x = Tensor.from_list([[1.0, 2.0], [float("inf"), 1.0], [float("nan"), 0.0], [3.0, 4.0], [5.0, 6.0]])
    found = ops.linear(x, Tensor.from_list([[1.0, 1.0], [-1.0, 2.0], [0.0, 1.0]])).tolist()
    assert found[0] == [3.0, 3.0, 2.0] and found[3:] == [[7.0, 5.0, 4.0], [11.0, 7.0, 6.0]]
    assert found[1][:2] == [float("inf"), float("-inf")] and found[1][2] != found[1][2]
    assert all(v != v for v in found[2])


def test_add_without_out_adds_to_zeros():
    x, weight = Tensor.full((2, 3), 1.0), Tensor.full((5, 3), 2.0)
    assert ops.linear(x, weight, add=True).tolist() == [[6.0] * 5] * 2


def test_linear_refuses_what_does_not_fit():
    x, weight = Tensor.zeros((2, 3)), Tensor.zeros((5, 3))
    with pytest.raises(TensorError, match=r"weight has shape \(5, 4\), expected \(any, 3\)"):
        ops.linear(x, Tensor.zeros((5, 4)))
    with pytest.raises(TensorError, match=r"x has shape \(3,\), expected \(any, any\)"):
        ops.linear(Tensor.zeros((3,)), Tensor.zeros((5, 3)))
    with pytest.raises(TensorError, match=r"weight has shape \(\), expected \(any, 3\)"):
        ops.linear(x, Tensor.zeros(()))
    with pytest.raises(TensorError, match="x is bfloat16"):
        ops.linear(x.astype("bfloat16"), weight)
    with pytest.raises(TensorError, match="bias is float16, expected float32"):
        ops.linear(x, weight, Tensor.zeros((5,), "float16"))
    with pytest.raises(TensorError, match=r"bias has shape \(3,\), expected \(5\)"):
        ops.linear(x, weight, Tensor.zeros((3,)))
    with pytest.raises(TensorError, match="weight is a strided view"):
        ops.linear(x, Tensor.zeros((3, 5)).T)
    with pytest.raises(TensorError, match=r"out has shape \(5, 2\)"):
        ops.linear(x, weight, out=Tensor.zeros((5, 2)))
