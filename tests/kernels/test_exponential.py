"""Exponentials: compiled, or, where the JIT is disabled, their Python twins."""

import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from pio.kernels.exponential import coarse_exp, exp
from pio.kernels.simd import load_f32, store_f32
from pio.tensor import Tensor


@njit(error_model="numpy")
def run_exp(out, x):
    store_f32(out, exp(load_f32(x)))


@njit(error_model="numpy")
def run_coarse_exp(out, x):
    store_f32(out, coarse_exp(load_f32(x)))


def sixteen(least, most):
    return st.lists(st.floats(least, most, width=32), min_size=16, max_size=16)


BELOW = (0.0, -0.0, -1.0, -87.3, -87.34, -104.0, -math.inf, -0.3466, -0.3465, -1e-30)
EDGES = [*BELOW, 1.0, 88.7, 88.73, 89.0, math.inf, math.nan]
EDGES_BELOW = [*BELOW, -3e38, -1e9, math.nan, -0.6931472, -0.3465736, -1e-45]


def check(run, x, exactness):
    t, out = Tensor.from_list(x), Tensor.zeros((16,))
    run(out.address, t.address)
    for v, found in zip(t.tolist(), out.tolist(), strict=True):
        if math.isnan(v):
            assert math.isnan(found)
        elif v > 88.73:
            assert found == math.inf
        elif v < -87.34:
            assert found == 0.0
        elif -87.33 < v < 88.72:
            assert found == (1.0 if v == 0.0 else pytest.approx(math.exp(v), rel=exactness))


@given(x=sixteen(-120, 120))
@example(EDGES)
def test_exp(x):
    check(run_exp, x, 2.5e-7)


@given(x=sixteen(-120, 0))
@example(EDGES_BELOW)
def test_coarse_exp(x):
    check(run_coarse_exp, x, 6e-6)


@pytest.mark.parametrize(("run", "end", "exactness"), [(run_exp, 88, 2.5e-7), (run_coarse_exp, 0, 6e-6)])
def test_they_are_accurate_everywhere(run, end, exactness):
    worst, out = 0.0, Tensor.zeros((16,))
    for first in range(-87 * 64, end * 64, 16):
        x = Tensor.from_list([(first + i) / 64 + 0.001 * i for i in range(16)])
        run(out.address, x.address)
        for v, found in zip(x.tolist(), out.tolist(), strict=True):
            worst = max(worst, abs(found / math.exp(v) - 1))
    assert worst < exactness


def test_coarse_exp_takes_every_nan_that_arithmetic_makes():
    """Its own, one that was a float16, and one of the other sign: a NaN among scores must reach the sum."""
    words = (0x7FC00000, 0xFFC00000, 0x7FC02000, 0x7FFFE000)
    x = Tensor.from_buffer(bytearray(struct.pack("<16I", *words * 4)), "float32")
    out = Tensor.zeros((16,))
    run_coarse_exp(out.address, x.address)
    assert all(math.isnan(v) for v in out.tolist())
