"""Convolutions, pictures and places in a grid on a GPU, under the CPU's operations and beside them."""

import math
import random
from importlib import import_module

import pytest
from gpu_case import Operations, bytes_of, numbers, run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.dtypes import uint8
from pio.kernels import launcher
from pio.kernels.cuda import image_rgb
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS


def picture(*shape, seed=1):
    source = random.Random(seed)
    return Tensor.from_list([source.randrange(256) for _ in range(math.prod(shape))], uint8).reshape(*shape)


@settings(max_examples=10)
@given(
    groups=st.integers(1, 2),
    channels=st.integers(1, 5),
    outputs=st.sampled_from((1, 3, 66)),
    height=st.integers(3, 11),
    width=st.integers(3, 30),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 3)),
    dilation=st.integers(1, 2),
    biased=st.booleans(),
)
def test_conv2d(groups, channels, outputs, height, width, kernel, stride, padding, dilation, biased):
    x, weight = numbers(groups * channels, height, width), numbers(groups * outputs, channels, *kernel, seed=3)
    bias = numbers(groups * outputs, seed=5) if biased else None
    if (
        min(height + 2 * padding[0] - dilation * (kernel[0] - 1), width + 2 * padding[1] - dilation * (kernel[1] - 1))
        < 1
    ):
        return
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    wanted = ops.conv2d(x, weight, bias, **how)
    with Operations("conv", x, weight, *([bias] if biased else []), multiprocessors=1):
        assert bytes_of(ops.conv2d(x, weight, bias, **how)) == bytes_of(wanted)


def test_conv1d_and_other_grids():
    x, weight, bias = numbers(7, 200), numbers(70, 7, 3, seed=3), numbers(70, seed=5)
    wanted = ops.conv1d(x, weight, bias, stride=2, padding=1)
    for multiprocessors in (1, 3):
        with Operations("conv", x, weight, bias, multiprocessors=multiprocessors):
            assert bytes_of(ops.conv1d(x, weight, bias, stride=2, padding=1)) == bytes_of(wanted)


@settings(max_examples=12)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 30)),
    to=st.tuples(st.integers(1, 25), st.integers(1, 20)),
    channels=st.sampled_from((1, 3, 4)),
    filter=st.sampled_from(("bicubic", "bilinear")),
    antialias=st.booleans(),
    floats=st.booleans(),
)
def test_image_resize(size, to, channels, filter, antialias, floats):
    image = numbers(*size, channels) if floats else picture(*size, channels)
    wanted = ops.image_resize(image, *to, filter=filter, antialias=antialias)
    with Operations("image_resize", image):
        found = ops.image_resize(image, *to, filter=filter, antialias=antialias)
    assert bytes_of(found) == bytes_of(wanted)


@settings(max_examples=8)
@given(
    count=st.integers(1, 4),
    patch=st.integers(1, 4),
    temporal=st.integers(1, 2),
    merge=st.integers(1, 2),
    squares=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    data=st.data(),
)
def test_image_patches(count, patch, temporal, merge, squares, data):
    side = patch * merge
    frames = picture(count, squares[0] * side, squares[1] * side, 3)
    grid = -(-count // temporal), squares[0] * merge, squares[1] * merge
    first = data.draw(st.integers(0, math.prod(grid) - 1))
    rows = data.draw(st.integers(1, math.prod(grid) - first))
    how = {"patch": patch, "temporal": temporal, "merge": merge, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.7)}
    wanted, out = (Tensor.zeros((rows, 3 * temporal * patch * patch)) for _ in range(2))
    ops.image_patches(frames, grid, first, out=wanted, **how)
    table = import_module("pio.ops.image_patches")._table
    table.cache_clear()  # its memory must be that of a tensor
    with Operations("image_patches", frames, out):
        ops.image_patches(frames, grid, first, out=out, **how)
    table.cache_clear()
    assert bytes_of(out) == bytes_of(wanted)


@settings(max_examples=12)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 70)),
    channels=st.sampled_from((1, 3, 4)),
    floats=st.sampled_from((None, (), (-0.5, 2.5), (math.nan,), (-1.0, -0.25), (math.inf, -0.0))),
)
def test_image_rgb(size, channels, floats):
    total = math.prod(size) * channels
    if floats is None:
        image = picture(*size, channels)
    else:
        values = [((7919 * i) % 257) / 256 for i in range(total)]
        for i, value in enumerate(floats):
            values[(5 * i + 3) % total] = value
        image = Tensor.from_list(values).reshape(*size, channels)
    out, found = Tensor.zeros((*size, 3), uint8), Tensor.from_list([math.inf, -math.inf])
    under = 10 | 200 << 8 | 77 << 16
    at = out, image, found, *size, channels, int(floats is not None), under
    run(image_rgb.image_rgb, *at, reading=(image,))
    if floats is None:
        assert bytes_of(out) == bytes_of(ops.image_rgb(image, background=(10, 200, 77)))
        return
    low, high = found.tolist()
    numbers_there = [v for v in image.reshape(-1).tolist() if not math.isnan(v)]
    assert math.isnan(high) == (len(numbers_there) < total)
    if numbers_there:
        assert low == min(numbers_there)
        assert math.isnan(high) or high == max(numbers_there)
    wanted, theirs = Tensor.zeros((*size, 3), uint8), Tensor.zeros((1, 2))
    launcher.module("image_rgb").image_rgb(wanted.address, image.address, theirs.address, *size, channels, 1, under, 1)
    assert bytes_of(out) == bytes_of(wanted)


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=6)
@given(
    side=st.integers(1, 5),
    blocks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    merge=st.integers(1, 3),
    first=st.integers(0, 40),
    n=st.integers(1, 20),
    dim=st.integers(1, 70),
)
def test_add_grid_embedding(dtype, side, blocks, merge, first, n, dim):
    table, x = numbers(side * side, dim, dtype=dtype), numbers(n, dim, seed=4)
    wanted, grid = x.clone(), (blocks[0] * merge, blocks[1] * merge)
    ops.add_grid_embedding(wanted, table, grid, first=first, merge=merge)
    with Operations("grid_embedding", x, table):
        ops.add_grid_embedding(x, table, grid, first=first, merge=merge)
    assert bytes_of(x) == bytes_of(wanted)
