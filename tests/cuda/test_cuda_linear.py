"""Linear layers of float weights on a GPU beside the CPU's."""

import math

import pytest
from gpu_case import bytes_of, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_norm import numbers

from pio import ops
from pio.kernels.cuda import _linears, bfloat16_linear
from pio.kernels.sizes import ROUNDED
from pio.tensor import Tensor

KINDS = ("float32", "float16", "bfloat16", ROUNDED)
PRECISE = {"float32": 1e-6, "float16": 1e-6, "bfloat16": 1e-5, ROUNDED: 1e-6}


def dtype_of(kind):
    return "bfloat16" if kind == ROUNDED else kind


def rounded(x):
    """Rows of activations as the kernel of rounded ones takes them."""
    rows, k = x.shape
    out = Tensor.full((rows, -(-k // 32) * 32), 7.0, "bfloat16")
    run(bfloat16_linear.round_rows, out, x, rows, k, reading=(x,))
    return out


def wanted(kind, x, w, bias=None):
    return ops.bfloat16_linear(x, w, bias) if kind == ROUNDED else ops.linear(x, w, bias)


def multiply_rows(kind, met, shape, weights, biases=None, outs=None, multiprocessors=2, kernel=None):
    """Run linear layers of one input; add where outputs are given; weights with how many outputs they have."""
    (rows, k), add = shape, outs is not None
    biases = biases or [None] * len(weights)
    outs = outs or [Tensor.full((rows, n), math.nan) for _, n in weights]
    matrices = Tensor.from_list(
        [
            [y.address, w.address, 0 if b is None else b.address, n]
            for y, (w, n), b in zip(outs, weights, biases, strict=True)
        ],
        "int64",
    )
    reading = [met, matrices, *(w for w, _ in weights), *(b for b in biases if b is not None)]
    kernel = kernel or _linears.linears[kind]
    sizes = len(weights), rows, k, int(add)
    run(kernel, met, matrices, *sizes, touching=outs, reading=reading, multiprocessors=multiprocessors)
    return outs


def multiply(kind, x, weights, biases=None, outs=None, multiprocessors=2):
    met = rounded(x) if kind == ROUNDED else x
    return multiply_rows(kind, met, x.shape, [(w, w.shape[0]) for w in weights], biases, outs, multiprocessors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "n", "k"), [(1, 16, 32), (3, 37, 320), (8, 5, 1056), (11, 50, 544), (29, 20, 72), (2, 9, 77), (35, 9, 288)]
)
@pytest.mark.parametrize("add", [False, True])
def test_linear(kind, rows, n, k, add):
    x, w, bias = numbers(rows, k), numbers(n, k, seed=3, dtype=dtype_of(kind)), numbers(n, seed=5, dtype=dtype_of(kind))
    y = numbers(rows, n, seed=4)
    expected = wanted(kind, x, w, bias)
    if add:
        expected = ops.add(expected, y)
    (found,) = multiply(kind, x, [w], [bias], [y] if add else None)
    assert relative_error(found, expected.reshape(-1).tolist()) < PRECISE[kind]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(rows=st.integers(1, 40), n=st.integers(1, 40), k=st.integers(1, 150), first=st.integers(1, 3))
def test_odd_sizes_and_several_matrices(kind, rows, n, k, first):
    x = numbers(rows, k)
    weights = [numbers(size, k, seed=size, dtype=dtype_of(kind)) for size in (n, first)]
    for weight, found in zip(weights, multiply(kind, x, weights), strict=True):
        assert relative_error(found, wanted(kind, x, weight).reshape(-1).tolist()) < PRECISE[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [544, 333])
def test_a_row_does_not_depend_on_others_or_on_the_gpu(kind, k):
    x, w = numbers(70, k), numbers(37, k, seed=3, dtype=dtype_of(kind))
    (many,) = multiply(kind, x, [w], multiprocessors=1)
    for first, last in ((66, 67), (3, 15), (40, 70), (30, 66)):
        (some,) = multiply(kind, x[first:last].clone(), [w], multiprocessors=3)
        assert bytes_of(some) == bytes_of(many[first:last].clone())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [2, 33])
def test_what_is_not_finite_reaches_its_row_alone(kind, rows):
    x, w = numbers(rows, 96), numbers(7, 96, seed=3, dtype=dtype_of(kind))
    (clean,) = multiply(kind, x, [w])
    x[1, 40:41].fill_(math.inf)
    (found,) = multiply(kind, x, [w])
    assert not any(map(math.isfinite, found[1].tolist()))
    assert bytes_of(found[:1].clone()) == bytes_of(clean[:1].clone())


@pytest.mark.parametrize("kind", KINDS)
def test_large_and_small_activations(kind):
    """Factors of float16 hold neither."""
    w = numbers(5, 64, seed=3, dtype=dtype_of(kind))
    for factor in (1e30, 1e-30):
        x = Tensor.from_list([[v * factor for v in row] for row in numbers(2, 64).tolist()])
        (found,) = multiply(kind, x, [w])
        assert relative_error(found, wanted(kind, x, w).reshape(-1).tolist()) < PRECISE[kind]


@pytest.mark.parametrize("shape", [(1, 32), (3, 77), (5, 64), (2, 1)])
def test_rounding_rows_is_the_cpu_s(shape):
    x = numbers(*shape)
    x[-1, -1:].fill_(math.inf)
    found = rounded(x)
    assert bytes_of(found[:, : shape[1]].clone()) == bytes_of(x.astype("bfloat16"))
    assert not any(v for row in found[:, shape[1] :].tolist() for v in row)


def test_nothing_gives_nothing():
    (found,) = multiply("bfloat16", Tensor.zeros((2, 0)), [Tensor.zeros((3, 0), "bfloat16")])
    assert found.tolist() == [[0.0] * 3] * 2
