"""Linear layers whose heads have a matrix each on a GPU beside the CPU's, and matrix products."""

import math

import pytest
from gpu_case import bytes_of, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_norm import numbers
from test_cuda_quantized import used

from pio import ops
from pio.kernels import launcher
from pio.kernels._formats import FORMATS
from pio.kernels.cuda import head_linear, matmul
from pio.ops.quantized import record_bytes
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS


def heads_of(rows, heads, k, gap):
    """Rows of heads, a slice of wider ones."""
    return numbers(rows, heads, k + gap)[:, :, :k]


@pytest.mark.parametrize("kind", FLOATS)
@settings(max_examples=6)
@given(
    rows=st.sampled_from((1, 5, 11, 40)),
    heads=st.integers(1, 3),
    n=st.integers(1, 40),
    k=st.integers(1, 70),
    gap=st.integers(0, 3),
)
def test_head_linear(kind, rows, heads, n, k, gap):
    x, wide = heads_of(rows, heads, k, gap), numbers(heads, n + 1, k, seed=3, dtype=kind)
    w, y = wide[:, :n], Tensor.full((rows, heads, n), math.nan)
    at = rows, heads, n, k, x.strides[0], x.strides[1], w.strides[0]
    run(head_linear.head_linear[kind], y, x, w, *at, reading=(x, w))
    assert relative_error(y, ops.head_linear(x, w).reshape(-1).tolist()) < 1e-5


def test_rows_and_heads_alone_have_the_same_bits():
    rows, heads, n, k = 35, 3, 20, 64
    x, w = heads_of(rows, heads, k, 8), numbers(heads, n, k, seed=3, dtype="bfloat16")
    y, alone = Tensor.zeros((rows, heads, n)), Tensor.zeros((2, 1, n))
    run(head_linear.head_linear["bfloat16"], y, x, w, rows, heads, n, k, x.strides[0], x.strides[1], n * k)
    part = x[30:32, 2:].clone()
    run(head_linear.head_linear["bfloat16"], alone, part, w[2:].clone(), 2, 1, n, k, k, k, n * k, multiprocessors=3)
    assert bytes_of(alone) == bytes_of(y[30:32, 2:].clone())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("rows", "heads", "n", "k"), [(1, 3, 16, 70), (5, 2, 41, 200), (40, 2, 24, 130)])
def test_quantized_head_linear(form, rows, heads, n, k):
    x, w = heads_of(rows, heads, k, 2), ops.pack_heads(numbers(heads, n, k, seed=3), form)
    records = Tensor.full((heads * rows, record_bytes(k)), 77, "uint8")
    run(head_linear.quantize_heads[form], records, x, rows, heads, k, x.strides[0], x.strides[1], reading=(x,))
    wanted = Tensor.full(records.shape, 77, "uint8")
    strides = x.strides[0], x.strides[1]
    launcher.module("head_linear").quantize_heads[form](wanted.address, x.address, rows, heads, k, *strides, 1)
    assert used(records) == used(wanted)
    y = Tensor.full((rows, heads, n), math.nan)
    pairs = w.data.shape[1]
    run(head_linear.quantized_head_linear[form], y, records, w.data, rows, heads, n, pairs, reading=(records, w.data))
    expected = ops.head_linear(x, w, out=Tensor.zeros((rows, heads, n)))
    assert relative_error(y, expected.reshape(-1).tolist()) < 1e-6


@pytest.mark.parametrize("kind", FLOATS)
@settings(max_examples=6)
@given(batch=st.integers(1, 3), rows=st.integers(1, 70), k=st.integers(0, 40), n=st.integers(1, 70))
def test_matmul_is_the_cpu_s_to_the_bit(kind, batch, rows, k, n):
    a, b = numbers(batch, rows, k), numbers(batch, k, n, seed=3, dtype=kind)
    c = Tensor.full((batch, rows, n), math.nan)
    run(matmul.matmul[kind], c, a, b, batch, rows, k, n, reading=(a, b))
    assert bytes_of(c) == bytes_of(ops.matmul(a, b))
