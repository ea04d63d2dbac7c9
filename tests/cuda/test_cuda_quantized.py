"""Quantized activations and linear layers of packed weights on a GPU beside the CPU's."""

import math

import pytest
from gpu_case import bytes_of, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_linear import multiply_rows
from test_cuda_norm import numbers

from pio import ops
from pio.kernels import launcher
from pio.kernels._formats import FORMATS
from pio.kernels.cuda import quantize
from pio.ops.quantized import record_bytes
from pio.tensor import Tensor

PRECISE = 1e-6  # integer sums are exact, float32 sums are in another order


def records(form, x, multiprocessors=2):
    rows, k = x.shape
    out = Tensor.full((rows, record_bytes(k)), 77, "uint8")
    run(quantize.quantize[form], out, x, rows, k, reading=(x,), multiprocessors=multiprocessors)
    return out


def used(data):
    """Records without what lies between a row's start and its first record, which nobody writes."""
    flat, line = bytes_of(data), data.shape[1]
    return [flat[at : at + 4] + flat[at + 16 : at + line] for at in range(0, len(flat), line)]


def multiply(form, x, weights, biases=None, outs=None, multiprocessors=2):
    met = records(form, x)
    return multiply_rows(form, met, x.shape, [(w.data, w.shape[0]) for w in weights], biases, outs, multiprocessors)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=8)
@given(
    rows=st.integers(1, 4),
    k=st.integers(1, 700),
    factor=st.sampled_from((1.0, 1e-25, 1e25, 0.0, 1e-38)),
    bad=st.sampled_from((None, math.inf, -math.inf, math.nan, 1e37)),
)
def test_records_are_the_cpu_s_to_the_bit(form, rows, k, factor, bad):
    x = Tensor.from_list([[v * factor for v in row] for row in numbers(rows, k).tolist()])
    if bad is not None:
        x[rows - 1, k // 2 : k // 2 + 1].fill_(bad)
    wanted = Tensor.zeros((rows, record_bytes(k)), "uint8")
    launcher.module("quantize").quantize[form](wanted.address, x.address, rows, k, 1)
    found = records(form, x, multiprocessors=1)
    if bad is None:
        assert used(found) == used(wanted)
    else:  # groups that hold no numbers are multiplied by NaN in the end, whatever they are
        assert used(found)[:-1] == used(wanted)[:-1]
        assert used(found)[-1][:4] == used(wanted)[-1][:4]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("rows", "n", "k"), [(1, 16, 64), (3, 37, 320), (8, 5, 1216), (11, 50, 600), (29, 20, 72), (2, 9, 1), (35, 9, 700)]
)
@pytest.mark.parametrize("add", [False, True])
def test_quantized_linear(form, rows, n, k, add):
    x, w, bias, y = (
        numbers(rows, k),
        ops.pack(numbers(n, k, seed=3), form),
        numbers(n, seed=5),
        numbers(rows, n, seed=4),
    )
    expected = ops.quantized_linear(x, w, bias)
    if add:
        expected = ops.add(expected, y)
    (found,) = multiply(form, x, [w], [bias], [y] if add else None)
    assert relative_error(found, expected.reshape(-1).tolist()) < PRECISE


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=6)
@given(rows=st.integers(1, 40), n=st.integers(1, 70), k=st.integers(1, 200), first=st.integers(1, 3))
def test_odd_sizes_and_several_matrices(form, rows, n, k, first):
    x, weights = numbers(rows, k), [ops.pack(numbers(size, k, seed=size), form) for size in (n, first)]
    for weight, found in zip(weights, multiply(form, x, weights), strict=True):
        assert relative_error(found, ops.quantized_linear(x, weight).reshape(-1).tolist()) < PRECISE


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_does_not_depend_on_others_or_on_the_gpu(form):
    x, w = numbers(70, 1100), ops.pack(numbers(37, 1100, seed=3), form)
    (many,) = multiply(form, x, [w], multiprocessors=1)
    for first, last in ((66, 67), (3, 15), (40, 70), (30, 66)):
        (some,) = multiply(form, x[first:last].clone(), [w], multiprocessors=3)
        assert bytes_of(some) == bytes_of(many[first:last].clone())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rows", [2, 33])
def test_what_is_not_finite_reaches_its_row_alone(form, rows):
    x, w = numbers(rows, 96), ops.pack(numbers(7, 96, seed=3), form)
    (clean,) = multiply(form, x, [w])
    x[1, 40:41].fill_(-math.inf)
    (found,) = multiply(form, x, [w])
    assert all(map(math.isnan, found[1].tolist()))
    assert bytes_of(found[:1].clone()) == bytes_of(clean[:1].clone())
