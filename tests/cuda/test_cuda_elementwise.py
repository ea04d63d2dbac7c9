"""Arithmetic, activations, softmax and searches on a GPU beside those of the CPU."""

import math

import pytest
from gpu_case import bytes_of, numbers, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.dtypes import int64
from pio.kernels.cuda import activation, elementwise, reduce, softmax
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS, SPECIAL, tensors

SIZES = st.integers(0, 2500)


def same(found, wanted):
    assert str(found.reshape(-1).tolist()) == str(wanted.reshape(-1).tolist())


@pytest.mark.parametrize("name", ["add", "mul"])
@settings(max_examples=8)
@given(n=SIZES, shift=st.integers(0, 3), data=st.data())
def test_arithmetic(name, n, shift, data):
    x = data.draw(tensors((n + shift,), special=SPECIAL))[shift:]
    y, out = numbers(n, seed=3), Tensor.full((n,), 7.0)
    run(getattr(elementwise, name), out, x, y, n, reading=(x, y))
    same(out, getattr(ops, name)(x, y))


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
@settings(max_examples=8)
@given(n=SIZES, shift=st.integers(0, 3), data=st.data())
def test_activations(name, n, shift, data):
    x = data.draw(tensors((n + shift,), special=SPECIAL))[shift:]
    out = Tensor.full((n,), 7.0)
    run(getattr(activation, name), out, x, n, reading=(x,))
    wanted = ops.silu(x) if name == "silu" else ops.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
    for found, right in zip(out.tolist(), wanted.tolist(), strict=True):
        assert str(found) == str(right) or math.isclose(found, right, rel_tol=5e-7, abs_tol=1e-37)


@settings(max_examples=8)
@given(rows=st.integers(1, 5), n=st.integers(1, 1300), gap=st.integers(0, 5))
def test_swiglu(rows, n, gap):
    wide, out = numbers(rows, 2 * n + gap), Tensor.full((rows, n), 7.0)
    gate, up = wide[:, :n], wide[:, n : 2 * n]
    step = 2 * n + gap
    run(activation.swiglu, out, gate, up, rows, n, n, step, step, reading=(wide,))
    assert relative_error(out, ops.swiglu(gate, up).reshape(-1).tolist()) < 5e-7


@settings(max_examples=8)
@given(tokens=st.integers(1, 5), heads=st.integers(1, 3), n=st.integers(1, 140), gap=st.integers(0, 5))
def test_sigmoid_gate(tokens, heads, n, gap):
    x, wide, out = (
        numbers(tokens, heads, n),
        numbers(tokens, heads, n + gap, seed=4),
        Tensor.full((tokens, heads, n), 7.0),
    )
    gate, token = wide[:, :, gap:], heads * n
    at = out, x, gate, tokens * heads, heads, n, token, token, heads * (n + gap), n + gap
    run(activation.sigmoid_gate, *at, reading=(x, wide))
    assert relative_error(out, ops.sigmoid_gate(x, gate).reshape(-1).tolist()) < 5e-7


@settings(max_examples=8)
@given(rows=st.integers(1, 11), n=st.sampled_from((1, 5, 64, 511, 512, 514, 1027)), data=st.data())
def test_softmax(rows, n, data):
    x = data.draw(tensors((rows, n), special=SPECIAL))
    out = Tensor.full((rows, n), 7.0)
    run(softmax.softmax, out, x, rows, n, reading=(x,))
    for found, right in zip(out.tolist(), ops.softmax(x).tolist(), strict=True):
        for a, b in zip(found, right, strict=True):
            assert str(a) == str(b) or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-37)


@pytest.mark.parametrize("n", [70, 803])
def test_a_row_of_softmax_does_not_depend_on_others_or_on_the_gpu(n):
    x, out, alone = numbers(10, n), Tensor.zeros((10, n)), Tensor.zeros((1, n))
    run(softmax.softmax, out, x, 10, n, multiprocessors=1)
    run(softmax.softmax, alone, x[7:8].clone(), 1, n, multiprocessors=3)
    assert bytes_of(out[7:8].clone()) == bytes_of(alone)


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=8)
@given(n=st.integers(0, 9000), places=st.lists(st.integers(0, 8999), max_size=3), data=st.data())
def test_first_non_finite(dtype, n, places, data):
    values = numbers(n).tolist()
    for place in places:
        if place < n:
            values[place] = data.draw(st.sampled_from((math.nan, math.inf, -math.inf)))
    x, found = Tensor.from_list(values, dtype), Tensor.full((1,), n, int64)
    run(reduce.first_non_finite[dtype], found, x, n, reading=(x,))
    wanted = ops.first_non_finite(x)
    assert found.tolist() == [n if wanted is None else wanted]
