"""The vector primitives: compiled, or, where the JIT is disabled, their Python twins."""

import ctypes
import math
import mmap
import struct

import pages
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from pio.kernels import simd
from pio.kernels._partial_vectors import load_up_to, store_up_to
from pio.kernels.simd import (
    JIT,
    fma,
    get_f16,
    get_f32,
    get_i32,
    get_u8,
    keep,
    keep_set,
    load_f16_lanes,
    load_f32,
    load_part_f32,
    max_lanes,
    maximum,
    minimum,
    put_f16,
    put_f32,
    put_u8,
    rint,
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
INF = math.inf


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
    store_f32(out + 384, minimum(a, b))


@given(x=lanes(), y=lanes(), z=lanes())
@example([0.0, -0.0, 1.0, math.inf] * 4, [0.0, 0.0, 0.0, math.inf] * 4, [1.0] * 16)
def test_arithmetic(x, y, z):
    out, vectors = Tensor.zeros((7, 16)), [Tensor.from_list(v) for v in (x, y, z)]
    run_arithmetic(out.address, *(v.address for v in vectors))
    added, subtracted, multiplied, divided, fused, larger, smaller = out.tolist()
    for i, (a, b, c) in enumerate(zip(*(v.tolist() for v in vectors), strict=True)):
        assert_close(added[i], _single(a + b))
        assert_close(subtracted[i], _single(a - b))
        assert_close(multiplied[i], _single(a * b))
        assert_close(divided[i], _single(a / b if b else a * math.copysign(math.inf, b)))
        slack = 1e-7 * abs(a * b) + 1e-44 if math.isfinite(a * b) else 0.0  # the product may be rounded before
        if abs(a * b) < 1e38 and abs(c) < 1e38:
            assert abs(fused[i] - _single(a * b + c)) <= slack + 1e-7 * abs(fused[i])
        if a == a and b == b:
            assert larger[i] == max(a, b) and smaller[i] == min(a, b)
        elif a != a:
            assert larger[i] != larger[i] and smaller[i] != smaller[i]


def _single(x):
    return ctypes.c_float(x).value


@njit(error_model="numpy")
def run_rint(out, x):
    store_f32(out, rint(load_f32(x)))


@given(x=lanes(st.one_of(ANY, st.integers(-20, 20).map(lambda n: n / 2))))
@example(
    [0.5, 1.5, 2.5, -0.5, -1.5, 8388607.5, -8388607.5, 3e38, INF, -INF, math.nan, 0.49999997, -0.0, 0.0, 1e-45, 3.0]
)
def test_rint(x):
    t, out = Tensor.from_list(x), Tensor.zeros((16,))
    run_rint(out.address, t.address)
    assert_close(out, [float(round(v)) if math.isfinite(v) else v for v in t.tolist()])


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
def run_keep_set(out, x, bits, other):
    store_f32(out, keep_set(load_f32(x), bits, other))


@given(bits=st.integers(-(2**63), 2**63 - 1), other=st.sampled_from((0.0, -math.inf, 5.5)))
def test_keep_set(bits, other):
    x, out = Tensor.from_list([float(i) for i in range(16)]), Tensor.zeros((16,))
    run_keep_set(out.address, x.address, bits, other)
    assert out.tolist() == [float(i) if (bits & 0xFFFF) // 2**i % 2 else other for i in range(16)]


@njit(error_model="numpy")
def run_scalars(out, x, i):
    store_f32(out, splat(get_f32(x)))
    return get_i32(i)


@given(x=ANY, i=st.integers(-(2**31), 2**31 - 1))
def test_scalars(x, i):
    t, whole, out = Tensor.from_list([x]), Tensor.from_list([i], "int32"), Tensor.zeros((16,))
    assert run_scalars(out.address, t.address, whole.address) == i
    assert bits(out) == bits(t) * 16 or x != x


@njit(error_model="numpy")
def run_bytes(at, value):
    before = get_u8(at)
    put_u8(at, value)
    return before


@given(old=st.integers(0, 255), value=st.integers(-(2**40), 2**40), place=st.integers(0, 4))
def test_bytes(old, value, place):
    t = Tensor.full((5,), old, "uint8")
    assert run_bytes(t[place:].address, value) == old
    assert t.tolist() == [value % 256 if i == place else old for i in range(5)]


@njit(error_model="numpy")
def run_halves(single, half, lanes):
    put_f16(half, get_f32(single))
    put_f32(single, get_f16(half))
    store_f32(lanes, load_f16_lanes(half))


@given(x=ANY)
@example(65519.0)
@example(65520.0)
@example(-3e-8)
@example(1.00048828125)
def test_halves(x):
    t, half, all_lanes = Tensor.from_list([x]), Tensor.full((18,), 5.0, "float16"), Tensor.zeros((16,))
    run_halves(t.address, half[1:].address, all_lanes.address)
    assert_close(t, [convert(x, "float16")])
    assert_close(half, [5.0, t.item(), *[5.0] * 16])
    assert_close(all_lanes, [t.item(), *[5.0] * 15])


@njit(error_model="numpy")
def run_tail(out, x, n):
    store_part_f32(out, load_part_f32(x, n) + splat(1.0), n)


@njit(error_model="numpy")
def run_up_to(out, x, n, room):
    store_up_to(out, load_up_to(x, n) + splat(0.5), room)


@pytest.mark.parametrize("room", [-2, 0, 3, 15, 16, 17])
@pytest.mark.parametrize("n", [-1, 0, 5, 15, 16, 40])
def test_as_many_as_there_are(n, room):
    x, out = Tensor.from_list([float(i + 1) for i in range(18)]), Tensor.full((18,), -7.0)
    run_up_to(out.address, x.address, n, room)
    wanted = [i + 1.5 if i < n else 0.5 for i in range(16)]
    assert out.tolist() == [wanted[i] if i < min(room, 16) else -7.0 for i in range(18)]


def test_parts_at_the_very_end_of_a_mapping():
    """Nothing past the end is read or written: the next page does not exist."""
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 2 * page) as memory:
        view = (ctypes.c_char * (2 * page)).from_buffer(memory)
        start = ctypes.addressof(view)
        pages.close(start + page, page)
        for n in (1, 5, 15):
            at = start + page - 4 * n
            run_tail(at, at, n)
            assert ctypes.c_float.from_address(start + page - 4).value == {1: 1.0, 5: 2.0, 15: 3.0}[n]
        del view


@njit(error_model="numpy")
def run_store_u8(out, x):
    simd.store_u8(out, load_f32(x))


@given(x=lanes(st.floats(0, 255, width=32)))
@example(
    [0.0, -0.0, 0.5, 1.5, 2.5, 253.5, 254.5, 255.0, 126.5, 127.0, 127.5, 0.49999997, 0.50000006, 1e-40, 200.5, 77.0]
)
def test_store_u8_rounds_to_the_nearest_byte(x):
    t, wide = Tensor.from_list(x), Tensor.full((18,), 99, "uint8")
    run_store_u8(wide[1:].address, t.address)
    assert wide.tolist() == [99, *(round(v) for v in t.tolist()), 99]


@given(x=lanes(), n=st.integers(0, 15), bad=st.sampled_from((math.nan, -math.nan, math.inf, -math.inf)))
def test_store_u8_takes_what_is_no_number(x, n, bad):
    """Its byte is anything; those beside it are theirs."""
    fine = [float(i * 17) for i in range(16)]
    out = Tensor.zeros((16,), "uint8")
    t = Tensor.from_list([*fine[:n], bad, *fine[n + 1 :]])
    run_store_u8(out.address, t.address)
    found = out.tolist()
    assert [v for i, v in enumerate(found) if i != n] == [v for i, v in enumerate(fine) if i != n]
    t = Tensor.from_list(x)
    run_store_u8(out.address, t.address)


@njit(error_model="numpy")
def run_integers(out, source):
    simd.put_i32(out, simd.get_i64(source))


@njit(error_model="numpy")
def run_doubles(out, source):
    simd.put_f64(out, simd.get_f64(source))


@given(x=st.floats(width=64))
def test_get_f64_and_put_f64(x):
    """All bits come through, those of NaN too."""
    source, out = (
        Tensor.from_list(list(struct.unpack("<q", struct.pack("<d", x))), "int64"),
        Tensor.full((3,), 7, "int64"),
    )
    run_doubles(out[1:].address, source.address)
    assert out.tolist() == [7, source.tolist()[0], 7]


@given(x=st.integers(-(2**63), 2**63 - 1))
def test_get_i64_and_put_i32(x):
    """A number that is too wide loses what is above 32 bits."""
    source, out = Tensor.from_list([x], "int64"), Tensor.full((3,), 7, "int32")
    run_integers(out[1:].address, source.address)
    assert out.tolist() == [7, (x + 2**31) % 2**32 - 2**31, 7]


@pytest.mark.skipif(not JIT, reason="needs the compiler")
def test_vectors_on_the_stack_do_not_cross_lines():
    """One that does is read back after a stall: a tile's spilled sums would wait for it in each round."""
    out, x = Tensor.zeros((2,)), Tensor.zeros((16,))
    run_folds(out.address, x.address)
    assert all('"stackrealign"' in code for code in run_folds.inspect_llvm().values())
