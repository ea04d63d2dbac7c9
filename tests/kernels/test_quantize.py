import ctypes
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.kernels import quantize
from pio.kernels._formats import FORMATS
from pio.ops.quantized import record_bytes
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.reference import quantize as reference
from pio.testing.strategies import sizes, tensors

SHAPES = sizes((1, 7), (1, 150))
FACTORS = st.sampled_from((1.0, 1e-20, 1e30, 1e-28, 1e-31))
INF, NAN = math.inf, math.nan


def quantized(x, form, threads=1):
    """Records of rows, uint8 (rows, bytes), with 99 all around that must stay."""
    rows, k = x.shape
    length = record_bytes(k)
    wide = Tensor.full((rows * length + 128,), 99, "uint8")
    out = wide[64 : 64 + rows * length]
    quantize.quantize[form](out.address, x.address, rows, k, threads)
    assert set(wide[:64].tolist() + wide[64 + rows * length :].tolist()) == {99}
    return out.reshape(rows, length)


def read(record, form):
    """From what the row's sums start, and its groups."""
    return reference.read_records(bytes(record.tolist()), FORMATS[form].offset, FORMATS[form].minima)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES, threads=st.sampled_from((1, 2, 3)))
def test_quantize(data, form, shape, threads):
    x = data.draw(tensors(shape, special=(0.0, -0.0)))
    x = Tensor.from_list([[v * data.draw(FACTORS) for v in row] for row in x.tolist()])
    found = quantized(x, form, threads)
    for i, row in enumerate(x.tolist()):
        assert read(found[i], form) == (0.0, reference.quantize(row))


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=sizes((2, 6), (1, 140)))
def test_a_row_has_the_same_bits_alone_and_among_others(data, form, shape):
    x = data.draw(tensors(shape, special=(INF, NAN)))
    together = quantized(x, form, 1)
    assert bits(together) == bits(quantized(x, form, 3))
    for i in range(shape[0]):
        assert bits(quantized(x[i : i + 1], form)) == bits(together[i])


@pytest.mark.parametrize("form", FORMATS)
def test_halves_go_to_the_even_number(form):
    x = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 0.4999, 3.0, *[0.0] * 21, *[-254.0, 1.0, 3.0, 5.0]]
    first, second = read(quantized(Tensor.from_list([x]), form)[0], form)[1]
    assert first.numbers == [127, 0, 2, 2, 0, -2, -2, 126, -126, 0, 3, *[0] * 21] and first.scale == 1.0
    assert second.numbers == [-127, 0, 2, 2, *[0] * 28] and second.scale == 2.0


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("exponent", [-102, -101, -7, 0, 9, 112])
def test_a_scale_is_the_least_with_which_nothing_rounds_beyond_127(form, exponent):
    for largest, more in ((64.0, 0), (127.0, 0), (nextafter(127.5, 0.0), 0), (127.5, 1), (128.0, 1)):
        x = [math.ldexp(v, exponent) for v in (1.0, -largest, 30.0)]
        start, groups = read(quantized(Tensor.from_list([x]), form)[0], form)
        if exponent + more > 112:
            assert math.isnan(start)
            continue
        assert start == 0.0 and groups[0].scale == math.ldexp(1.0, exponent + more)
        assert groups[0].numbers[1] == -round(largest / 2**more)


def nextafter(x, towards):
    """The next float32 below."""
    bits = ctypes.c_int32.from_buffer(ctypes.c_float(x)).value - 1
    return ctypes.c_float.from_buffer(ctypes.c_int32(bits)).value


@pytest.mark.parametrize("form", FORMATS)
def test_zeros_and_what_is_next_to_nothing(form):
    tiny = ctypes.c_float(1e-45).value
    found = read(quantized(Tensor.from_list([[0.0] * 32 + [-9e-32, tiny] + [0.0] * 30]), form)[0], form)
    assert found == (0.0, [reference.Group(2.0**-102, [0] * 32, 0)] * 2)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bad", [INF, -INF, NAN, -NAN, 7e35, -3e38, "7fffffff", "7f800001"])
@pytest.mark.parametrize("place", [0, 15, 16, 31])
def test_the_sums_of_a_row_start_from_nan_where_it_holds_what_eight_bits_cannot(form, bad, place):
    x = [[float(i + 1) for i in range(96)] for _ in range(3)]
    clean = bytes(quantized(Tensor.from_list(x), form)[1].tolist())
    x = Tensor.from_list(x)
    if isinstance(bad, str):  # NaN of every kind
        ctypes.c_uint32.from_address(x.address + 4 * (96 + 32 + place)).value = int(bad, 16)
    else:
        x[1, 32 + place : 33 + place].fill_(bad)
    found = quantized(x, form)
    assert [math.isnan(read(row, form)[0]) for row in (found[0], found[2])] == [False, False]
    record = bytes(found[1].tolist())
    assert math.isnan(ctypes.c_float.from_buffer_copy(record, 0).value)
    for a, b in ((16, 48), (80, 84), (88, 92), (96, 176)):  # all but the group itself
        assert record[a:b] == clean[a:b]


@given(n=st.integers(1, 130), seed=st.integers(0, 9))
def test_formats_differ_only_in_what_stands_behind_the_scales(n, seed):
    x = Tensor.from_list([[((7 * i + seed) % 23 - 11) / 8 for i in range(n)]])
    read_all = [read(quantized(x, form)[0], form) for form in FORMATS]
    assert read_all[0] == read_all[1] == read_all[2]


def test_no_numbers_give_no_records():
    assert [read(row, "int4") for row in quantized(Tensor.zeros((3, 0)), "int4")] == [(0.0, [])] * 3
