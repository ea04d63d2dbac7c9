"""Norms on a GPU beside those of the CPU."""

import pytest
from gpu_case import bytes_of, numbers, relative_error, run, words
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.kernels.cuda import norm
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

# a warp takes rows of up to 512, with eight warps in a block; what is odd is read number by number
DIMS = st.sampled_from((1, 3, 31, 64, 130, 301, 509, 512, 516, 777))


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=8)
@given(tokens=st.integers(1, 5), heads=st.integers(1, 3), dim=DIMS, gap=st.integers(0, 5), offset=st.integers(0, 1))
def test_rms_norm(dtype, tokens, heads, dim, gap, offset):
    x, weight = numbers(tokens, heads * dim + gap), numbers(dim, seed=2, dtype=dtype)
    out = Tensor.full((tokens, heads, dim), 7.0)
    at = x, weight, tokens * heads, heads, dim, heads * dim, heads * dim + gap
    run(norm.rms_norm[dtype], out, *at, 1e-5, offset, reading=(x, weight))
    wanted = ops.rms_norm(
        x[:, : heads * dim].clone().reshape(tokens, heads, dim), weight, 1e-5, zero_centred=bool(offset)
    )
    assert relative_error(out, wanted.reshape(-1).tolist()) < 1e-6


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=6)
@given(rows=st.integers(1, 11), dim=DIMS, offset=st.integers(0, 1))
def test_fused_add_rms_norm(dtype, rows, dim, offset):
    x, residual, weight = numbers(rows, dim), numbers(rows, dim, seed=5), numbers(dim, seed=2, dtype=dtype)
    summed, out = residual.clone(), Tensor.full((rows, dim), 7.0)
    run(norm.fused_add_rms_norm[dtype], out, summed, x, weight, rows, dim, 1e-6, offset, reading=(x, weight))
    wanted = ops.fused_add_rms_norm(x, residual, weight, 1e-6, zero_centred=bool(offset))
    assert bytes_of(summed) == bytes_of(residual)
    assert relative_error(out, wanted.reshape(-1).tolist()) < 1e-6


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=6)
@given(tokens=st.integers(1, 4), heads=st.integers(1, 3), dim=DIMS, gap=st.integers(0, 5))
def test_gated_rms_norm(dtype, tokens, heads, dim, gap):
    x, weight = numbers(tokens, heads, dim), numbers(dim, seed=2, dtype=dtype)
    wide = numbers(tokens, heads, dim + gap, seed=3)
    out = Tensor.full((tokens, heads, dim), 7.0)
    token, head = heads * dim, dim + gap
    shape = words(heads, dim, token, token, heads * head, heads, 0, head, 1e-5)
    run(norm.gated_rms_norm[dtype], out, x, wide, weight, tokens * heads, shape, reading=(x, wide, weight, shape))
    wanted = ops.gated_rms_norm(x, wide[:, :, :dim], weight, 1e-5)
    assert relative_error(out, wanted.reshape(-1).tolist()) < 1e-6


@settings(max_examples=6)
@given(tokens=st.integers(1, 4), groups=st.integers(1, 3), each=st.integers(1, 3), dim=DIMS, gap=st.integers(0, 5))
def test_gated_rms_norm_of_gates_in_groups(tokens, groups, each, dim, gap):
    heads, width = groups * each, each * dim + gap
    x, weight, wide = numbers(tokens, heads, dim), numbers(dim, seed=2), numbers(tokens, groups, width, seed=3)
    out = Tensor.full((tokens, heads, dim), 7.0)
    shape = words(heads, dim, heads * dim, heads * dim, groups * width, each, width, dim, 1e-5)
    run(norm.gated_rms_norm["float32"], out, x, wide, weight, tokens * heads, shape, reading=(x, wide, weight, shape))
    gate = wide[:, :, : each * dim].contiguous().reshape(tokens, heads, dim)
    wanted = ops.gated_rms_norm(x, gate, weight, 1e-5)
    assert relative_error(out, wanted.reshape(-1).tolist()) < 1e-6


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=6)
@given(rows=st.integers(1, 11), dim=DIMS, biased=st.booleans())
def test_layer_norm(dtype, rows, dim, biased):
    x, weight, bias = numbers(rows, dim), numbers(dim, seed=2, dtype=dtype), numbers(dim, seed=4, dtype=dtype)
    out = Tensor.full((rows, dim), 7.0)
    run(norm.layer_norm[dtype], out, x, weight, bias if biased else 0, rows, dim, 1e-5, reading=(x, weight, bias))
    wanted = ops.layer_norm(x, weight, bias if biased else None, 1e-5)
    assert relative_error(out, wanted.reshape(-1).tolist()) < 1e-6


def test_what_is_not_finite_stays_in_its_row():
    x, weight = numbers(6, 70), numbers(70, seed=2)
    x[2, 5].fill_(float("nan"))
    x[4, 69].fill_(float("inf"))
    out = Tensor.zeros((6, 70))
    run(norm.rms_norm["float32"], out, x, weight, 6, 1, 70, 70, 70, 1e-5, 0)
    wanted = ops.rms_norm(x, weight, 1e-5)
    assert str(out[2].tolist()) == str(wanted[2].tolist()) == str([float("nan")] * 70)
    assert str(out[4].tolist()) == str(wanted[4].tolist())
    assert relative_error(out[5].clone(), wanted[5].tolist()) < 1e-6


@pytest.mark.parametrize("dim", [70, 803])
@pytest.mark.parametrize("place", [2, 3])
def test_a_row_does_not_depend_on_others_or_on_the_gpu(dim, place):
    x, weight = numbers(5, dim), numbers(dim, seed=2)
    out, alone = Tensor.zeros((5, dim)), Tensor.zeros((1, dim))
    residual, own = numbers(5, dim, seed=9), numbers(5, dim, seed=9)[place : place + 1].clone()
    one = x[place : place + 1].clone()
    run(norm.rms_norm["float32"], out, x, weight, 5, 1, dim, dim, dim, 1e-5, 0, multiprocessors=1)
    run(norm.rms_norm["float32"], alone, one, weight, 1, 1, dim, dim, dim, 1e-5, 0, multiprocessors=3)
    assert bytes_of(out[place : place + 1].clone()) == bytes_of(alone)
    run(norm.fused_add_rms_norm["float32"], out, residual, x, weight, 5, dim, 1e-5, 0, multiprocessors=1)
    run(norm.fused_add_rms_norm["float32"], alone, own, one, weight, 1, dim, 1e-5, 0, multiprocessors=3)
    assert bytes_of(out[place : place + 1].clone()) == bytes_of(alone)
    run(norm.layer_norm["float32"], out, x, weight, 0, 5, dim, 1e-5, multiprocessors=1)
    run(norm.layer_norm["float32"], alone, one, weight, 0, 1, dim, 1e-5, multiprocessors=3)
    assert bytes_of(out[place : place + 1].clone()) == bytes_of(alone)
