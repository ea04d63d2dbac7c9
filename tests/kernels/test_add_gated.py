import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.add_gated import add_gated
from pio.testing.strategies import sizes, tensors

DTYPES = st.sampled_from(("float32", "float16", "bfloat16"))


@given(data=st.data(), shape=sizes((1, 70), (1, 75), (1, 75)), dtype=DTYPES, threads=st.sampled_from((1, 2, 3)))
def test_add_gated(data, shape, dtype, threads):
    rows, n, k = shape
    out, y, x = (data.draw(tensors(part)) for part in ((rows, n), (rows, n), (rows, k)))
    weight = data.draw(tensors((1, k))).astype(dtype)
    before, expected = out.clone(), add_gated(out.tolist(), y.tolist(), x.tolist(), weight.tolist()[0])
    assert ops.add_gated(out.to(Device("cpu", threads)), y, x, weight) is not None
    largest = max(abs(v) for rows_ in (y.tolist(), before.tolist()) for row in rows_ for v in row)
    slack = max(abs(a * w) for row in x.tolist() for a, w in zip(row, weight.tolist()[0], strict=True)) * k
    assert_close(out, expected, absolute=(4e-7 + 2e-7 * slack) * largest)

    # the bits of a linear layer, a sigmoid and a weighted sum, one after the other
    ones, places = Tensor.full((rows, 1), 1.0), Tensor.from_list([[r] for r in range(rows)], "int32")
    ops.add_choices(before, y, places, ops.sigmoid_gate(ones, ops.linear(x, weight)))
    assert bits(out) == bits(before)


def test_an_open_gate_and_a_closed_one():
    out, y = Tensor.full((3, 2), 10.0), Tensor.full((3, 2), 0.5)
    x = Tensor.from_list([[1e4], [-1e4], [0.0]])
    ops.add_gated(out, y, x, Tensor.full((1, 1), 1.0))
    assert out.tolist() == [[10.5] * 2, [10.0] * 2, [10.25] * 2]
    ops.add_gated(out, y, Tensor.full((3, 1), math.nan), Tensor.full((1, 1), 1.0))
    assert all(math.isnan(v) for row in out.tolist() for v in row)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": (3, 5)}, r"y has shape \(3, 5\), expected \(3, 4\)"),
        ({"x": (2, 5)}, r"x has shape \(2, 5\), expected \(3, any\)"),
        ({"weight": (5,)}, r"weight has shape \(5,\), expected \(1, 5\)"),
        ({"scratch": (3, 1)}, r"scratch has shape \(3, 1\), expected \(3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(given, message):
    shapes = {"out": (3, 4), "y": (3, 4), "x": (3, 5), "weight": (1, 5)} | given
    with pytest.raises(TensorError, match=message):
        ops.add_gated(**{name: Tensor.zeros(shape) for name, shape in shapes.items()})
