import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import dtypes, ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.copy import convert
from pio.testing.strategies import any_types, views

THREADS = st.sampled_from((1, 2, 3))
TYPES = [d.name for d in dtypes.ALL]
FLOATS = [
    *(0.0, -0.0, 1.0, -1.5, 2.5, 1.9999999, -0.9999, 126.5, 127.0, 128.0, -128.9, -129.0, 255.0, 255.9, 256.0, 300.0),
    *(2.0**31 - 128, 2.0**31, -(2.0**31), -(2.0**31) - 256, 2.0**63 - 2.0**39, 2.0**63, -(2.0**63), -1e19, 1e30),
    *(1.00390625, 1.01171875, 3.3895e38, 3.4e38, -3.4e38, 65504.0, 65519.0, 65520.0, 6e-8, 2.9e-8, 3e-8, 1e-40),
    *(math.inf, -math.inf, math.nan),
]
INTEGERS = [
    *(0, 1, -1, 100, 127, 128, -128, -129, 255, 256, 65519, 65520, 2**24 + 1, 2**31 - 1, 2**31, -(2**31)),
    *(2**53 + 1, 2**54 + 2**30 + 1, -(2**54) - 2**30 - 1, 2**62 + 1, 2**63 - 1, -(2**63)),
]


def stored(dtype, values):
    kind = dtypes.dtype(dtype)
    if not kind.is_float:
        values = [convert(v, dtype) for v in values]
    return Tensor.from_list(values, kind)


@pytest.mark.parametrize("target", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_every_pair_of_types(source, target):
    x = stored(source, FLOATS if dtypes.dtype(source).is_float else INTEGERS)
    values = x.tolist()
    expected = [convert(v, target) if source != target else v for v in values]
    lanes = ops.copy(Tensor.zeros(x.shape, target).to(Device("cpu", 1)), x)  # by sixteen, then one by one
    assert_close(lanes, expected)
    for place, value in enumerate(values):  # each alone
        one = ops.copy(Tensor.zeros((1,), target).to(Device("cpu", 1)), x[place : place + 1])
        assert bits(one) == bits(lanes[place : place + 1]), value


@given(x=st.lists(st.floats(width=32), max_size=40), target=st.sampled_from(("float16", "bfloat16", "int8", "int64")))
def test_rounding(x, target):
    t = Tensor.from_list(x)
    assert_close(ops.copy(Tensor.zeros(t.shape, target), t), [convert(v, target) for v in t.tolist()])


@given(
    data=st.data(),
    shape=st.lists(st.integers(0, 5), max_size=7),
    source=any_types,
    target=st.sampled_from(("float32", "int32")),
    threads=THREADS,
)
def test_any_strides(data, shape, source, target, threads):
    count = math.prod(shape)
    x = Tensor.from_list([i % 100 for i in range(count)], source).reshape(shape)
    before = x.tolist()
    order = data.draw(st.permutations(range(len(shape)))) if shape else ()
    flips = tuple(slice(None, None, -1) if data.draw(st.booleans()) else slice(None) for _ in shape)
    there = data.draw(views(Tensor.zeros([shape[i] for i in order], target)))
    wide = there.storage
    back = there.transpose(*(order.index(i) for i in range(len(shape)))) if shape else there
    back, here = back[flips], data.draw(views(x))
    touched = sum(b != 0 for b in wide.memoryview())
    assert touched == 0
    back = back.to(Device("cpu", threads))
    assert ops.copy(back, here) is back
    assert back.tolist() == before
    assert sum(b != 0 for b in wide.memoryview()) == sum(b != 0 for b in bits(back)), "gaps were written"


@pytest.mark.parametrize("threads", [1, 3])
def test_seven_axes_that_no_stride_joins(threads):
    x = Tensor.from_list(list(range(3 * 2**6)), "int32").reshape(3, 2, 2, 2, 2, 2, 2)
    out = Tensor.zeros((3, 2, 2, 2, 2, 2, 2)).transpose(0, 3, 1, 5, 2, 6, 4)
    back = Tensor.zeros(out.shape, "int32")
    source = x.transpose(6, 4, 2, 0, 1, 3, 5)
    there = Tensor.zeros(source.shape)
    assert ops.copy(there.to(Device("cpu", threads)), source).tolist() == source.tolist()
    out, back = (tensor.to(Device("cpu", threads)) for tensor in (out, back))
    assert ops.copy(out, ops.copy(back, x.reshape(out.shape))).tolist() == x.reshape(out.shape).tolist()


def test_one_row_for_all():
    row = Tensor.from_list([float(i) for i in range(37)])
    broadcast = Tensor(row.storage, row.address, row.dtype, (3, 37), (0, 1))
    assert ops.copy(Tensor.zeros((3, 37), "int8"), broadcast).tolist() == [list(range(37))] * 3


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_transposed_copy(threads):
    x = Tensor.from_list([[float(1000 * r + c) for c in range(83)] for r in range(70)])
    out = ops.copy(Tensor.zeros((83, 70)).to(Device("cpu", threads)), x.T)
    assert out.tolist() == [[float(1000 * r + c) for r in range(70)] for c in range(83)]


def test_copy_refuses_what_does_not_fit():
    with pytest.raises(TensorError, match=r"src has shape \(3, 2\), expected \(2, 3\)"):
        ops.copy(Tensor.zeros((2, 3)), Tensor.zeros((3, 2)))
    with pytest.raises(TensorError, match="dst is read-only"):
        ops.copy(Tensor.from_buffer(bytes(8), "float32"), Tensor.zeros((2,)))
