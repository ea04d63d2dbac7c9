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
FACTORS = st.sampled_from((1.0, 1e-20, 1e30, 1e-29))
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
    return reference.read_records(bytes(record.tolist()), FORMATS[form].offset, FORMATS[form].minima)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES, threads=st.sampled_from((1, 2, 3)))
def test_quantize(data, form, shape, threads):
    x = data.draw(tensors(shape, special=(0.0, -0.0)))
    x = Tensor.from_list([[v * data.draw(FACTORS) for v in row] for row in x.tolist()])
    found = quantized(x, form, threads)
    for i, row in enumerate(x.tolist()):
        groups, expected = read(found[i], form), reference.quantize(row)
        assert len(groups) == len(expected)
        values = [*row, *[0.0] * 64]
        for g, (group, wanted) in enumerate(zip(groups, expected, strict=True)):
            assert group.scale == pytest.approx(wanted.scale, rel=3e-7, abs=0)
            assert group.total == sum(group.numbers)
            for value, number, likely in zip(values[32 * g :], group.numbers, wanted.numbers, strict=False):
                exact = value / wanted.scale if wanted.scale else 0.0
                assert abs(number - exact) <= 0.5 + 1e-4 and abs(number) <= 127
                assert number == likely or abs(abs(exact - math.floor(exact)) - 0.5) < 1e-4


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
    first, second = read(quantized(Tensor.from_list([x]), form)[0], form)
    assert first.numbers == [127, 0, 2, 2, 0, -2, -2, 126, -126, 0, 3, *[0] * 21] and first.scale == 1.0
    assert second.numbers == [-127, 0, 2, 2, *[0] * 28] and second.scale == 2.0


@pytest.mark.parametrize("form", FORMATS)
def test_zeros_and_what_is_next_to_nothing(form):
    tiny = ctypes.c_float(1e-45).value
    groups = read(quantized(Tensor.from_list([[0.0] * 32 + [-1e-30, tiny] + [0.0] * 30]), form)[0], form)
    assert groups == [reference.Group(0.0, [0] * 32, 0)] * 2


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bad", [INF, -INF, NAN, -NAN])
@pytest.mark.parametrize("place", [0, 15, 16, 31])
def test_what_is_not_finite_shows_in_the_scale_of_its_group(form, bad, place):
    x = [float(i + 1) for i in range(96)]
    clean = bytes(quantized(Tensor.from_list([x]), form)[0].tolist())
    x[32 + place] = bad
    record = bytes(quantized(Tensor.from_list([x]), form)[0].tolist())
    scales = [ctypes.c_float.from_buffer_copy(record, at).value for at in (64, 68, 144)]
    assert math.isfinite(scales[0]) and not math.isfinite(scales[1]) and math.isfinite(scales[2])
    assert [record[a:b] for a, b in ((0, 32), (64, 68), (72, 76), (80, 160))] == [
        clean[a:b] for a, b in ((0, 32), (64, 68), (72, 76), (80, 160))
    ]


@given(n=st.integers(1, 130), seed=st.integers(0, 9))
def test_formats_differ_only_in_what_stands_behind_the_scales(n, seed):
    x = Tensor.from_list([[((7 * i + seed) % 23 - 11) / 8 for i in range(n)]])
    read_all = [read(quantized(x, form)[0], form) for form in FORMATS]
    assert read_all[0] == read_all[1] == read_all[2]


def test_no_numbers_give_no_records():
    assert quantized(Tensor.zeros((3, 0)), "int4").shape == (3, 0)
