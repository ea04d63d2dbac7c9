import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.strategies import FLOATS, sizes, tensors

WIDTHS = sizes((1, 7), (1, 40), (1, 110), (1, 61), (1, 53))


@pytest.mark.parametrize("kind", FLOATS)
@given(data=st.data(), shape=WIDTHS, count=st.integers(1, 3), threads=st.sampled_from((1, 2, 3)))
def test_together_is_one_after_another_to_the_bit(data, kind, shape, count, threads):
    rows, k, *widths = shape
    x = data.draw(tensors((rows, k)))
    weights = [data.draw(tensors((n, k), kind)) for n in widths[:count]]
    biases = [data.draw(st.one_of(st.none(), tensors((n,), kind))) for n in widths[:count]]
    outs = [Tensor.full((rows, n), float("nan")) for n in widths[:count]]
    ops.linears(x.to(Device("cpu", threads)), weights, outs, biases)
    for weight, bias, out in zip(weights, biases, outs, strict=True):
        assert bits(out) == bits(ops.linear(x.to(Device("cpu", 1)), weight, bias))


@given(data=st.data(), shape=WIDTHS)
def test_other_types_and_more_layers_run_one_after_another(data, shape):
    rows, k, *widths = shape
    x = data.draw(tensors((rows, k)))
    weights = [data.draw(tensors((n, k), kind)) for n, kind in zip((*widths, 9), (*FLOATS, "float32"), strict=True)]
    for chosen in (weights, weights[:2]):
        outs = [Tensor.empty((rows, weight.shape[0])) for weight in chosen]
        ops.linears(x, chosen, outs)
        assert [bits(out) for out in outs] == [bits(ops.linear(x, weight)) for weight in chosen]


def test_errors_name_the_argument():
    x, w = Tensor.zeros((2, 5)), Tensor.zeros((3, 5))
    with pytest.raises(TensorError, match="out has shape"):
        ops.linears(x, [w], [Tensor.zeros((2, 4))])
    with pytest.raises(TensorError, match="weight has shape"):
        ops.linears(x, [w, Tensor.zeros((3, 6))], [Tensor.zeros((2, 3))] * 2)
    with pytest.raises(TensorError, match="bias is float16"):
        ops.linears(x, [w], [Tensor.zeros((2, 3))], [Tensor.zeros((3,), "float16")])
