import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from int8_cache import GARBAGE, Cache, pick
from numba import njit

from pio import ops
from pio.dtypes import dtype
from pio.kernels.quantized_cache import put_bytes
from pio.kernels.simd import JIT, load_f32
from pio.tensor import Tensor
from pio.testing.reference import quantized_cache as reference
from pio.testing.strategies import sizes, tensors

ANY = st.floats(width=32)


def lanes(elements=ANY):
    return st.lists(elements, min_size=16, max_size=16)


@given(
    data=st.data(),
    length=st.integers(1, 70),
    shape=sizes((1, 3), (1, 160)),
    threads=st.sampled_from((1, 2, 3)),
    past=st.integers(0, 69),
)
def test_a_cache_holds_keys_by_groups_and_values_by_positions(data, length, shape, threads, past):
    kv_heads, dim = shape
    length, past = (length, min(past, length - 1)) if JIT else (7, min(past, 6))
    k, v = (data.draw(tensors((length, kv_heads, dim))) for _ in range(2))
    cache = Cache([length], kv_heads, dim, data.draw(st.sampled_from(GARBAGE)))
    for first, last in ((0, past), (past, length)):
        if last > first:
            zeros = Tensor.zeros((last - first, kv_heads, dim))
            cache.attend([(0, first, last - first)], zeros, pick(k, first, last), pick(v, first, last), threads)
    keys, values = cache.holds(length)
    for j in range(length):
        for h in range(kv_heads):
            key, value = k[j].tolist()[h], v[j].tolist()[h]
            assert keys[j][h] == reference.round_key(key)
            stored, exact = values[j][h], reference.round_value(value)
            assert stored.scale == pytest.approx(exact.scale, rel=3e-7)
            check_numbers(value, stored.numbers, exact)


def check_numbers(values, found, exact):
    for value, number, likely in zip(values, found, exact.numbers, strict=False):
        whole = value / exact.scale if exact.scale else 0.0
        assert abs(number - whole) <= 0.5 + 1e-4 and abs(number) <= 127
        assert number == likely or abs(abs(whole - math.floor(whole)) - 0.5) < 1e-4
    assert not any(found[len(values) :])


@pytest.mark.parametrize(("dim", "sizes"), [(128, (136, 132)), (64, (68, 68)), (40, (68, 52)), (1, (68, 20))])
def test_bytes_of_a_position(dim, sizes):
    _, keys, values = ops.attention.cache_layout(dtype("int8"), 5, 3, dim)
    assert keys == (5, 3, 32 * sizes[0]) and values == (5, 3, 32 * sizes[1])


@njit(error_model="numpy")
def run_put_bytes(out, which, x):
    put_bytes(out, which, load_f32(x))


@given(x=lanes(st.floats(-128, 127, width=32)), old=st.binary(min_size=66, max_size=66), which=st.integers(0, 3))
@example(
    [-128.0, -127.5, -126.5, -0.5, -1.5, 0.5, 1.5, 127.0, 126.5, -0.0, 0.0, 1.0, -1.0, 63.5, 64.5, -64.5], b"?" * 66, 2
)
def test_put_bytes_writes_one_of_four(x, old, which):
    t, wide = Tensor.from_list(x), Tensor.from_buffer(bytearray(old), "uint8")
    run_put_bytes(wide[1:].address, which, t.address)  # at an odd address too
    expected = list(old)
    for i, v in enumerate(t.tolist()):
        expected[1 + 4 * i + which] = round(v) % 256
    assert wide.tolist() == expected


@given(x=lanes(), old=st.binary(min_size=64, max_size=64), which=st.integers(0, 3))
@example([math.nan, -math.nan, math.inf, -math.inf, *[3e38] * 6, *[-3e38] * 6], b"\x5a" * 64, 1)
def test_put_bytes_leaves_the_others_alone_whatever_it_writes(x, old, which):
    t, wide = Tensor.from_list(x), Tensor.from_buffer(bytearray(old), "uint8")
    run_put_bytes(wide.address, which, t.address)
    assert [v for i, v in enumerate(wide.tolist()) if i % 4 != which] == [
        v for i, v in enumerate(old) if i % 4 != which
    ]
