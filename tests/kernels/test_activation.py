import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import ConfigError, TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import activation as reference
from pio.testing.strategies import sizes, tensors, views

THREADS = st.sampled_from((1, 2, 3))
NUMBERS = st.one_of(st.floats(-12, 12, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False))
EDGES = [0.0, -0.0, 1e-30, -1e-30, 4.0, -4.0, 14.0, -14.0, 20.0, -20.0, 87.5, -87.5, 88.8, -88.8, 3e38, -3e38]

FUNCTIONS = {
    "silu": (ops.silu, reference.silu),
    "gelu": (ops.gelu, reference.gelu),
    "gelu none": (
        lambda x, **rest: ops.gelu(x, approximate="none", **rest),
        lambda x: reference.gelu(x, approximate="none"),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(x=st.lists(NUMBERS, max_size=50), threads=THREADS, in_place=st.booleans())
@example(EDGES, 1, False)
@example([], 2, True)
def test_activations(name, x, threads, in_place):
    function, expected = FUNCTIONS[name]
    t = Tensor.from_list(x)
    found = function(t.to(Device("cpu", threads)), out=t if in_place else None)
    # far below zero the result is tiny beside x, and is allowed to vanish
    slack = [3e-7 * max(1.0, v) + (1e-30 if v < -80 else 0.0) for v in x]
    assert_close(found, [expected(v) for v in x], relative=5e-7, absolute=slack)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_everywhere_near_zero(name):
    function, expected = FUNCTIONS[name]
    x = [i / 128 for i in range(-1280, 1281)]
    assert_close(function(Tensor.from_list(x)), [expected(v) for v in x], relative=3e-7, absolute=3e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_of_infinity_and_nan(name):
    function, _ = FUNCTIONS[name]
    high, nan, last = function(Tensor.from_list([math.inf, math.nan, 1.0])).tolist()
    assert high == math.inf and math.isnan(nan) and 0.7 < last < 0.9


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_keep_the_shape(name):
    assert FUNCTIONS[name][0](Tensor.zeros((2, 3, 5))).shape == (2, 3, 5)


@given(data=st.data(), shape=sizes((0, 6), (1, 75)), threads=THREADS, target=st.sampled_from(("new", "gate", "up")))
def test_swiglu_of_rows_with_gaps(data, shape, threads, target):
    plain = data.draw(tensors(shape)), data.draw(tensors(shape))
    gate, up = (data.draw(views(x)) for x in plain)
    out = {"new": None, "gate": gate, "up": up}[target]
    found = ops.swiglu(gate.to(Device("cpu", threads)), up, out=out)
    expected = reference.swiglu(*(x.tolist() for x in plain))
    assert_close(found, expected, relative=1e-6, absolute=1e-30)
    assert out is None or found is out


def test_swiglu_of_a_fused_projection():
    both = Tensor.from_list([[float(i - r) for i in range(70)] for r in range(3)])
    gate, up = both[:, :35], both[:, 35:]
    expected = ops.swiglu(gate.contiguous(), up.contiguous())
    upper = bits(up)
    assert bits(ops.swiglu(gate, up, out=gate)) == bits(expected)
    assert bits(both[:, 35:]) == upper


@given(data=st.data(), shape=sizes((0, 6), (1, 75)), threads=THREADS, target=st.sampled_from(("new", "x", "gate")))
def test_sigmoid_gate_of_rows_with_gaps(data, shape, threads, target):
    plain = data.draw(tensors(shape)), data.draw(tensors(shape))
    x, gate = (data.draw(views(t)) for t in plain)
    out = {"new": None, "x": x, "gate": gate}[target]
    found = ops.sigmoid_gate(x.to(Device("cpu", threads)), gate, out=out)
    assert_close(found, reference.sigmoid_gate(*(t.tolist() for t in plain)), relative=1e-6, absolute=1e-30)
    assert out is None or found is out


def test_sigmoid_gate_of_heads_whose_gates_follow_their_queries():
    tokens, heads, n = 3, 4, 21
    both = Tensor.from_list([float(i % 17 - 8) for i in range(tokens * heads * 2 * n)]).reshape(tokens, heads, 2 * n)
    x = Tensor.from_list([float(i % 5) for i in range(tokens * heads * n)]).reshape(tokens, heads, n)
    expected = ops.sigmoid_gate(x, both[:, :, n:].contiguous())
    assert bits(ops.sigmoid_gate(x, both[:, :, n:], out=x)) == bits(expected)


def test_a_gate_that_is_not_finite():
    x, gate = Tensor.full((1, 3), 2.0), Tensor.from_list([[math.inf, -math.inf, math.nan]])
    high, low, nan = ops.sigmoid_gate(x, gate).tolist()[0]
    assert (high, low) == (2.0, 0.0) and math.isnan(nan)


def test_activations_refuse_what_does_not_fit():
    x = Tensor.zeros((2, 6))
    with pytest.raises(ConfigError, match="approximate is 'erf', expected"):
        ops.gelu(x, approximate="erf")
    with pytest.raises(TensorError, match="x is bfloat16, expected float32"):
        ops.silu(x.astype("bfloat16"))
    with pytest.raises(TensorError, match="strided view"):
        ops.gelu(x[:, ::2])
    with pytest.raises(TensorError, match=r"out has shape \(6, 2\)"):
        ops.silu(x, out=Tensor.zeros((6, 2)))
    with pytest.raises(TensorError, match=r"up has shape \(2, 3\), expected \(2, 6\)"):
        ops.swiglu(x, x[:, :3])
    with pytest.raises(TensorError, match=r"gate has shape \(6,\), expected \(rows, n\)"):
        ops.swiglu(x[0], x[0])
    with pytest.raises(TensorError, match="up has strides"):
        ops.swiglu(x[:, :3], x[:, ::2])
    with pytest.raises(TensorError, match=r"sigmoid_gate: x has shape \(6,\), expected \(rows, n\) or"):
        ops.sigmoid_gate(x[0], x[0])
    with pytest.raises(TensorError, match=r"gate has shape \(1, 6\), expected \(2, 6\)"):
        ops.sigmoid_gate(x, x[:1])
    with pytest.raises(TensorError, match="gate is float16, expected float32"):
        ops.sigmoid_gate(x, x.astype("float16"))
    with pytest.raises(TensorError, match="out is read-only"):
        ops.sigmoid_gate(x, x, out=Tensor.from_buffer(bytes(48), "float32", (2, 6)))
