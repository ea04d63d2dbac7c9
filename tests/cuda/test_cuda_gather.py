"""Rows chosen by index, copies and packed rows on a GPU beside those of the CPU."""

import itertools
import math

import pytest
from gpu_case import bytes_of, numbers, run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.dtypes import ALL, int32, int64
from pio.kernels.cuda import copy, gather, packing
from pio.kernels.cuda._moves import pair
from pio.ops.copy import merged
from pio.tensor import Tensor
from pio.testing.reference.copy import convert
from pio.testing.strategies import FLOATS, SPECIAL, indices, tensors

NAMES = [d.name for d in ALL]


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=8)
@given(rows=st.integers(1, 9), n=st.integers(0, 12), dim=st.integers(1, 300), data=st.data())
def test_gather(dtype, rows, n, dim, data):
    table, chosen = data.draw(tensors((rows, dim), dtype, special=SPECIAL)), data.draw(indices(n, rows))
    out = Tensor.full((n, dim), 7.0)
    run(gather.gather[dtype], out, table, chosen, n, dim, int(chosen.dtype is int64), reading=(table, chosen))
    assert str(out.tolist()) == str(ops.gather(table, chosen).tolist())  # which NaN it is may differ


@settings(max_examples=10)
@given(rows=st.integers(1, 40), n=st.integers(0, 30), dim=st.integers(1, 70), scaled=st.booleans(), data=st.data())
def test_scatter_add(rows, n, dim, scaled, data):
    out, chosen, x, scales = (
        numbers(rows, dim),
        data.draw(indices(n, rows)),
        numbers(n, dim, seed=3),
        numbers(n, seed=5),
    )
    wanted = out.clone()
    at = out, chosen, x, scales if scaled else 0, n, dim, int(chosen.dtype is int64)
    run(gather.scatter_add, *at, touching=(scales,), reading=(chosen, x, scales))
    ops.scatter_add_by_index(wanted, chosen, x, scales if scaled else None)
    assert bytes_of(out) == bytes_of(wanted)


@pytest.mark.parametrize("name", ["place_rows", "add_rows"])
@settings(max_examples=8)
@given(n=st.integers(1, 6), dim=st.integers(1, 300), chosen=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_rows_that_lie_anywhere(name, n, dim, chosen):
    others = [numbers(dim, seed=s) for s in range(3)]
    rows = Tensor.from_list([0 if c == 0 else others[c - 1].address for c in chosen[:n]], int64)
    out = numbers(n, dim, seed=8)
    wanted = out.clone()
    run(getattr(gather, name), out, rows, n, dim, touching=others, reading=(rows, *others))
    getattr(ops, name)(wanted, rows)
    assert bytes_of(out) == bytes_of(wanted)


@settings(max_examples=10)
@given(
    values=st.lists(st.integers(-3, 12), max_size=600), limit=st.integers(1, 11), kind=st.sampled_from((int32, int64))
)
def test_indices_outside(values, limit, kind):
    x, stop, found = Tensor.from_list(values, kind), Tensor.full((1,), 77, int64), Tensor.full((1,), 77, int64)
    wanted = next((i for i, v in enumerate(values) if not 0 <= v < limit), -1)
    run(gather.stop_outside, stop, x, len(values), int(kind is int64), limit, reading=(x,))
    run(gather.first_outside, found, x, len(values), int(kind is int64), limit, reading=(x,))
    assert (stop.tolist(), found.tolist()) == ([wanted + 1], [wanted])


@settings(max_examples=8)
@given(keys=st.lists(st.integers(0, 3), max_size=700), kind=st.sampled_from((int32, int64)))
def test_positions_of_a_value(keys, kind):
    x, found = Tensor.from_list(keys, kind), Tensor.full((1,), 77, int64)
    run(gather.count_value, found, x, len(keys), 2, int(kind is int64), reading=(x,))
    wanted = [i for i, key in enumerate(keys) if key == 2]
    assert found.tolist() == [len(wanted)]
    places = Tensor.full((len(wanted) + 1,), 77, int32)
    run(gather.find_value, places, x, len(keys), 2, int(kind is int64), reading=(x,))
    assert places.tolist() == [*wanted, 77]


def box_of(dst, src):
    """As ``ops.copy`` makes it, for strides that are not negative."""
    axes = [(n, a, b) for n, a, b in zip(dst.shape, dst.strides, src.strides, strict=True) if n != 1]
    axes = merged(axes)
    ones = [(1, 0, 0)] * (6 - len(axes))
    whole = [*axes[:-1], *ones, axes[-1]] if axes else ones
    return Tensor.from_list(list(itertools.chain.from_iterable(whole)), int64)


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_conversions(source, target):
    edge = [
        0,
        1,
        -1,
        2.5,
        -2.5,
        127.9,
        128,
        -129,
        255,
        256,
        1e10,
        -1e10,
        3e38,
        -3e38,
        70000,
        65504,
        1e-7,
        6e-8,
        2**24 + 1,
    ]
    if source in FLOATS:
        values = (
            [float(v) for v in edge] + list(SPECIAL) + [1e20, -1e20, 9.3e18, 2147483648.0, 1 + 2**-8, 1 + 3 * 2**-9]
        )
        x = Tensor.from_list(values, source)
    else:
        ends = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
        low, high = ends[source]
        x = Tensor.from_list([min(max(int(v), low), high) for v in edge] + [low, high, high - 1, high // 3], source)
    out = Tensor.zeros((x.size,), target)
    run(copy.copy[f"{source}_to_{target}"], out, x, box_of(out, x), reading=(x,))
    assert pair(f"{source}_to_{target}") == (source, target)
    for found, given_value in zip(out.tolist(), x.tolist(), strict=True):
        right = convert(given_value, target)
        assert str(found) == str(right) or (math.isnan(found) and math.isnan(right)) or found == right


@pytest.mark.parametrize("kind", ["float32_to_float32", "bfloat16_to_bfloat16", "int8_to_int8", "float32_to_float16"])
@settings(max_examples=10)
@given(data=st.data())
def test_strides(kind, data):
    source, target = pair(kind)
    shape = data.draw(st.lists(st.sampled_from((1, 2, 3, 4, 8, 5)), min_size=1, max_size=4))
    shape[-1] = data.draw(st.sampled_from((1, 3, 16, 32, 130, 260)))
    cut = data.draw(st.sampled_from((0, 1, 16)))
    order = data.draw(st.permutations(range(len(shape))))
    whole = math.prod(shape) + cut
    x = Tensor.from_list([(7 * i) % 251 - 125 for i in range(whole)], source)[cut:].reshape(*shape).transpose(*order)
    wide = Tensor.zeros([*x.shape[:-1], x.shape[-1] + cut], target)
    out = wide[..., cut:]
    run(copy.copy[kind], out, x, box_of(out, x), reading=(x,))
    wanted = Tensor.zeros([*x.shape[:-1], x.shape[-1] + cut], target)
    ops.copy(wanted[..., cut:], x)
    assert bytes_of(wide) == bytes_of(wanted)


@pytest.mark.parametrize("name", ["int8", "int4", "int4_zero_point"])
@settings(max_examples=6)
@given(rows=st.integers(1, 40), k=st.integers(1, 200), n=st.integers(1, 9), data=st.data())
def test_packed_rows(name, rows, k, n, data):
    packed = ops.pack(numbers(rows, k), name)
    chosen = data.draw(indices(n, rows))
    out = Tensor.full((n, k), 7.0)
    at = out, packed.data, chosen, n, k, int(chosen.dtype is int64)
    run(packing.unpack[name], *at, reading=(packed.data, chosen))
    assert bytes_of(out) == bytes_of(ops.unpack(packed, chosen))
    everything = Tensor.full((rows, k), 7.0)
    run(packing.unpack[name], everything, packed.data, 0, rows, k, 0, reading=(packed.data,))
    assert bytes_of(everything) == bytes_of(ops.unpack(packed))
