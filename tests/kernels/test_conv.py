import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import conv as reference
from pio.testing.strategies import sizes, tensors

THREADS = st.sampled_from((1, 2, 3))
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDING = st.tuples(st.integers(0, 3), st.integers(0, 3))


def largest(x):
    return max(abs(v) for v in x.reshape(x.size).tolist())


@given(
    data=st.data(),
    shape=sizes((1, 5), (1, 7), (1, 150), (1, 6), (1, 4), (1, 8)),
    groups=st.integers(1, 3),
    steps=st.tuples(PAIRS, PADDING, PAIRS),
    biased=st.booleans(),
    threads=THREADS,
)
def test_conv2d(data, shape, groups, steps, biased, threads):
    channels, height, width, outputs, tall, wide = shape
    stride, padding, dilation = steps
    height, width = height + dilation[0] * (tall - 1), width + dilation[1] * (wide - 1)
    x = data.draw(tensors((groups * channels, height, width)))
    weight = data.draw(tensors((groups * outputs, channels, tall, wide)))
    bias = data.draw(tensors((groups * outputs,))) if biased else None
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    found = ops.conv2d(x.to(Device("cpu", threads)), weight, bias, **how)
    expected = reference.conv2d(x.tolist(), weight.tolist(), bias.tolist() if biased else None, **how)
    slack = 1e-6 * channels * tall * wide * (1.0 + largest(x) * largest(weight)) + 1e-5
    assert_close(found, expected, relative=1e-5, absolute=slack)
    assert bits(ops.conv2d(x.to(Device("cpu", 1)), weight, bias, **how)) == bits(found), "threads change bits"


@given(
    data=st.data(),
    shape=sizes((1, 4), (1, 200), (1, 6), (1, 5)),
    groups=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
)
@example(data=None, shape=(1, 64, 1, 1), groups=1, stride=1, padding=0, dilation=1)
def test_conv1d(data, shape, groups, stride, padding, dilation):
    channels, length, outputs, wide = shape
    length += dilation * (wide - 1)
    if data is None:
        x, weight = Tensor.full((1, 64), 2.0), Tensor.full((1, 1, 1), 0.5)
    else:
        x = data.draw(tensors((groups * channels, length)))
        weight = data.draw(tensors((groups * outputs, channels, wide)))
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    found = ops.conv1d(x, weight, **how)
    slack = 1e-6 * channels * wide * (1.0 + largest(x) * largest(weight)) + 1e-5
    assert_close(found, reference.conv1d(x.tolist(), weight.tolist(), **how), relative=1e-5, absolute=slack)


def test_a_kernel_that_covers_patches_is_a_matrix_product():
    x = Tensor.from_list([[[float(16 * y + z) for z in range(16)] for y in range(8)]])
    weight = Tensor.from_list([[[[1.0, 0.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 1.0]]]])
    found = ops.conv2d(x, weight, Tensor.from_list([0.5, -0.5]), stride=2).tolist()
    assert found[0][3] == [96.5 + 2 * i for i in range(8)] and found[1][0] == [16.5 + 2 * i for i in range(8)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 0}, "stride is 0, expected a whole number from 1"),
        ({"stride": (1, 2, 3)}, r"stride is \(1, 2, 3\)"),
        ({"padding": -1}, "padding is -1, expected a whole number from 0"),
        ({"dilation": 1.5}, "dilation is 1.5"),
        ({"groups": 0}, "groups is 0"),
        ({"groups": 3}, "4 channels and 6 outputs do not split into 3 groups"),
        ({"groups": 2}, "weight has 4 channels, expected 2: x has 4 channels in 2 groups"),
        ({"dilation": 5}, "is longer than x of shape"),
        ({"bias": Tensor.zeros((5,))}, r"bias has shape \(5,\), expected \(6\)"),
        ({"x": Tensor.zeros((4, 9))}, r"x has shape \(4, 9\)"),
        ({"out": Tensor.zeros((6, 1, 1))}, r"out has shape \(6, 1, 1\), expected \(6, 6, 7\)"),
    ],
)
def test_conv2d_refuses_what_does_not_fit(change, message):
    given = {"x": Tensor.zeros((4, 8, 9)), "weight": Tensor.zeros((6, 4, 3, 3))}
    with pytest.raises(TensorError, match=f"^conv2d: .*{message}"):
        ops.conv2d(**given | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"padding": (1, 1)}, r"padding is \(1, 1\)"),
        ({"weight": Tensor.zeros((6, 3, 3))}, "weight has 3 channels, expected 4"),
        ({"weight": Tensor.zeros((6, 4, 12))}, "is longer than x"),
        ({"weight": Tensor.zeros((6, 4, 0))}, "or empty"),
    ],
)
def test_conv1d_refuses_what_does_not_fit(change, message):
    with pytest.raises(TensorError, match=f"^conv1d: .*{message}"):
        ops.conv1d(**{"x": Tensor.zeros((4, 9)), "weight": Tensor.zeros((6, 4, 3))} | change)
