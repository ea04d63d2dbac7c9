"""The vector primitives: compiled, or, where the JIT is disabled, their Python twins."""

import ctypes
import math
import mmap

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from pio.kernels import simd
from pio.kernels.simd import (
    exp,
    fma,
    get_f32,
    get_i32,
    keep,
    load_f32,
    load_part_f32,
    max_lanes,
    maximum,
    put_f32,
    splat,
    store_f32,
    store_part_f32,
    sum_lanes,
)
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.copy import convert
from pio.testing.strategies import FLOATS

ANY = st.floats(width=32)
FINITE = st.floats(-1000, 1000, width=32)


def lanes(elements=ANY):
    return st.lists(elements, min_size=16, max_size=16)


def movers(dtype):
    load, store = simd.load[dtype], simd.store[dtype]
    load_part, store_part = simd.load_part[dtype], simd.store_part[dtype]

    @njit(error_model="numpy")
    def widen(out, x):
        store_f32(out, load(x))

    @njit(error_model="numpy")
    def narrow(out, x):
        store(out, load_f32(x))

    @njit(error_model="numpy")
    def widen_part(out, x, n):
        store_f32(out, load_part(x, n))

    @njit(error_model="numpy")
    def narrow_part(out, x, n):
        store_part(out, load_f32(x), n)

    return widen, narrow, widen_part, narrow_part


MOVERS = {dtype: movers(dtype) for dtype in FLOATS}


@pytest.mark.parametrize("dtype", FLOATS)
@given(x=lanes())
@example([65519.0, 65520.0, -65520.0, 6e-8, 3e-8, 2.9e-8, 1e-40, -0.0, 3.4e38, 1.00390625, *[math.nan] * 3, *[2.5] * 3])
def test_stores_round_to_nearest_even_and_loads_are_exact(dtype, x):
    widen, narrow, _, _ = MOVERS[dtype]
    single, packed, back = Tensor.from_list(x), Tensor.zeros((16,), dtype), Tensor.zeros((16,))
    narrow(packed.address, single.address)
    assert_close(packed, [convert(v, dtype) for v in single.tolist()])
    assert [math.copysign(1, v) for v in packed.tolist() if v == v] == [math.copysign(1, v) for v in x if v == v]
    widen(back.address, packed.address)
    assert_close(back, packed.tolist())


@pytest.mark.parametrize("dtype", FLOATS)
@given(n=st.integers(0, 16))
def test_parts_touch_n_elements(dtype, n):
    _, _, widen_part, narrow_part = MOVERS[dtype]
    x = Tensor.from_list([float(i + 1) for i in range(16)])
    out = Tensor.full((18,), -7.0, dtype)
    narrow_part(out[1:].address, x.address, n)
    assert out.tolist() == [-7.0, *range(1, n + 1), *[-7.0] * (17 - n)]
    back = Tensor.full((16,), -7.0)
    widen_part(back.address, out[1:].address, n)
    assert back.tolist() == [*range(1, n + 1), *[0.0] * (16 - n)]


@njit(error_model="numpy")
def run_arithmetic(out, x, y, z):
    a, b, c = load_f32(x), load_f32(y), load_f32(z)
    store_f32(out, a + b)
    store_f32(out + 64, a - b)
    store_f32(out + 128, a * b)
    store_f32(out + 192, a / b)
    store_f32(out + 256, fma(a, b, c))
    store_f32(out + 320, maximum(a, b))


@given(x=lanes(), y=lanes(), z=lanes())
@example([0.0, -0.0, 1.0, math.inf] * 4, [0.0, 0.0, 0.0, math.inf] * 4, [1.0] * 16)
def test_arithmetic(x, y, z):
    out, vectors = Tensor.zeros((6, 16)), [Tensor.from_list(v) for v in (x, y, z)]
    run_arithmetic(out.address, *(v.address for v in vectors))
    added, subtracted, multiplied, divided, fused, larger = out.tolist()
    for i, (a, b, c) in enumerate(zip(*(v.tolist() for v in vectors), strict=True)):
        assert_close(added[i], _single(a + b))
        assert_close(subtracted[i], _single(a - b))
        assert_close(multiplied[i], _single(a * b))
        assert_close(divided[i], _single(a / b if b else a * math.copysign(math.inf, b)))
        slack = 1e-7 * abs(a * b) + 1e-44 if math.isfinite(a * b) else 0.0  # the product may be rounded before
        if abs(a * b) < 1e38 and abs(c) < 1e38:
            assert abs(fused[i] - _single(a * b + c)) <= slack + 1e-7 * abs(fused[i])
        if a == a and b == b:
            assert larger[i] == max(a, b)
        elif a != a:
            assert larger[i] != larger[i]


def _single(x):
    return ctypes.c_float(x).value


@njit(error_model="numpy")
def run_exp(out, x):
    store_f32(out, exp(load_f32(x)))


EXP_EDGES = [
    *(0.0, -0.0, 1.0, -1.0, 88.7, 88.73, -87.3, -87.34, 89.0, -104.0, math.inf, -math.inf, math.nan),
    *(0.3466, 0.3465, 1e-30),
]


@given(x=lanes(st.floats(-120, 120, width=32)))
@example(EXP_EDGES)
def test_exp(x):
    t, out = Tensor.from_list(x), Tensor.zeros((16,))
    run_exp(out.address, t.address)
    for v, found in zip(t.tolist(), out.tolist(), strict=True):
        if v != v:
            assert found != found
        elif v > 88.73:
            assert found == math.inf
        elif v < -87.34:
            assert found == 0.0
        elif -87.33 < v < 88.72:
            assert found == pytest.approx(math.exp(v), rel=2.5e-7)
    if 0.0 in x:
        assert out.tolist()[x.index(0.0)] == 1.0


def test_exp_is_accurate_everywhere():
    worst, out = 0.0, Tensor.zeros((16,))
    for first in range(-87 * 64, 88 * 64, 16):
        x = Tensor.from_list([(first + i) / 64 + 0.001 * i for i in range(16)])
        run_exp(out.address, x.address)
        for v, found in zip(x.tolist(), out.tolist(), strict=True):
            worst = max(worst, abs(found / math.exp(v) - 1))
    assert worst < 2.5e-7


@njit(error_model="numpy")
def run_folds(out, x):
    v = load_f32(x)
    put_f32(out, sum_lanes(v))
    put_f32(out + 4, max_lanes(v))


@given(x=lanes(FINITE))
def test_folds(x):
    t, out = Tensor.from_list(x), Tensor.zeros((2,))
    run_folds(out.address, t.address)
    total, largest = out.tolist()
    tree = t.tolist()
    while len(tree) > 1:
        half = len(tree) // 2
        tree = [_single(a + b) for a, b in zip(tree[:half], tree[half:], strict=True)]
    assert total == tree[0], "the order of the sum is a promise"
    assert largest == max(t.tolist())


@njit(error_model="numpy")
def run_keep(out, x, first, last, other):
    store_f32(out, keep(load_f32(x), first, last, other))


@given(first=st.integers(-3, 20), last=st.integers(-3, 20), other=st.sampled_from((0.0, -math.inf, 5.5)))
def test_keep(first, last, other):
    x, out = Tensor.from_list([float(i) for i in range(16)]), Tensor.zeros((16,))
    run_keep(out.address, x.address, first, last, other)
    assert out.tolist() == [float(i) if first <= i < last else other for i in range(16)]


@njit(error_model="numpy")
def run_scalars(out, x, i):
    store_f32(out, splat(get_f32(x)))
    return get_i32(i)


@given(x=ANY, i=st.integers(-(2**31), 2**31 - 1))
def test_scalars(x, i):
    t, out = Tensor.from_list([x]), Tensor.zeros((16,))
    assert run_scalars(out.address, t.address, Tensor.from_list([i], "int32").address) == i
    assert bits(out) == bits(t) * 16 or x != x


@njit(error_model="numpy")
def run_tail(out, x, n):
    store_part_f32(out, load_part_f32(x, n) + splat(1.0), n)


def test_parts_at_the_very_end_of_a_mapping():
    """Nothing past the end is read or written: the next page does not exist."""
    page = mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, 2 * page) as memory:
        view = (ctypes.c_char * (2 * page)).from_buffer(memory)
        start = ctypes.addressof(view)
        assert libc.mprotect(ctypes.c_void_p(start + page), ctypes.c_size_t(page), 0) == 0
        for n in (1, 5, 15):
            at = start + page - 4 * n
            run_tail(at, at, n)
            assert ctypes.c_float.from_address(start + page - 4).value == {1: 1.0, 5: 2.0, 15: 3.0}[n]
        del view
