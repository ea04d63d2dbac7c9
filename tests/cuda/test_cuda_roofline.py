"""What measures a GPU does all that it is said to do."""

import math

import pytest
from gpu_case import run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.dtypes import int64
from pio.kernels.cuda import roofline
from pio.tensor import Tensor

THREADS, WARPS = 256, 8


@settings(max_examples=6)
@given(n=st.integers(0, 80000), multiprocessors=st.integers(1, 2))
def test_everything_is_read(n, multiprocessors):
    x = Tensor.from_list([float(i % 31 - 11) for i in range(n)]) if n else Tensor.empty((0,))
    sums = Tensor.full((roofline.read_all.shape.blocks * multiprocessors,), math.nan)
    run(roofline.read_all, sums, x, n, reading=(x,), multiprocessors=multiprocessors)
    assert sum(sums.tolist()) == sum(i % 31 - 11 for i in range(n))  # whole numbers: no sum is rounded


@pytest.mark.parametrize("rounds", [0, 1, 6, 11])
def test_every_multiply_add_is_done(rounds):
    sums = Tensor.full((roofline.fma_all.shape.blocks,), math.nan)
    run(roofline.fma_all, sums, rounds, 0.75, 0.5, multiprocessors=1)
    for block, found in enumerate(sums.tolist()):
        total = 0.0
        for chain in range(roofline.CHAINS):
            value = float(block + chain)
            for _ in range(rounds):
                value = value * 0.75 + 0.5
            total += THREADS * value
        assert found == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("rounds", "x"), [(0, 1.0), (3, 1.0), (2, -2.0)])
def test_every_product_of_bfloat16_is_done(rounds, x):
    sums = Tensor.full((roofline.pair_all.shape.blocks,), math.nan)
    run(roofline.pair_all, sums, rounds, x, multiprocessors=1)
    numbers = 4 * THREADS
    wanted = sum(numbers * (chain + rounds * 32 * x) for chain in range(roofline.CHAINS))
    assert sums.tolist() == [wanted] * roofline.pair_all.shape.blocks


@pytest.mark.parametrize(("rounds", "start"), [(0, 1), (3, 1), (4, 126), (2, 255)])
def test_every_product_of_bytes_is_done(rounds, start):
    sums = Tensor.full((roofline.dot_all.shape.blocks,), 7, int64)
    run(roofline.dot_all, sums, rounds, start, multiprocessors=1)
    steps = sum((start + i + 128) % 256 - 128 for i in range(rounds))
    wanted = 4 * THREADS * 32 * steps * sum(range(1, roofline.CHAINS + 1))
    assert sums.tolist() == [wanted] * roofline.dot_all.shape.blocks
