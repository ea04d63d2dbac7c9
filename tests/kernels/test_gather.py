import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import gather as reference
from pio.testing.strategies import FLOATS, SPECIAL, float_types, indices, sizes, tensors

THREADS = st.sampled_from((1, 2, 3))


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((1, 9), (0, 70), (0, 12)), threads=THREADS)
def test_gather(data, dtype, shape, threads):
    rows, dim, n = shape
    table = data.draw(tensors((rows, dim), dtype, special=SPECIAL))
    where = data.draw(indices(n, rows))
    found = ops.gather(table.to(Device("cpu", threads)), where)
    assert found.dtype.name == "float32" and found.shape == (n, dim)
    assert_close(found, reference.gather(table.tolist(), where.tolist()))


@given(data=st.data(), shape=sizes((0, 70), (1, 40)), threads=THREADS)
def test_place_rows(data, shape, threads):
    n, dim = shape
    out, others = data.draw(tensors((n, dim))), data.draw(tensors((5, dim), special=SPECIAL))
    chosen = data.draw(st.lists(st.none() | st.integers(0, 4), min_size=n, max_size=n))
    addresses = Tensor.from_list([0 if i is None else others[i].address for i in chosen], "int64")
    expected = reference.place_rows(out.tolist(), [None if i is None else others[i].tolist() for i in chosen])
    out = out.to(Device("cpu", threads))
    assert ops.place_rows(out, addresses) is out
    assert_close(out, expected)


@given(data=st.data(), shape=sizes((0, 70), (1, 40)), threads=THREADS)
def test_add_rows(data, shape, threads):
    n, dim = shape
    out, others = data.draw(tensors((n, dim))), data.draw(tensors((5, dim)))
    chosen = data.draw(st.lists(st.none() | st.integers(0, 4), min_size=n, max_size=n))
    addresses = Tensor.from_list([0 if i is None else others[i].address for i in chosen], "int64")
    expected = reference.add_rows(out.tolist(), [None if i is None else others[i].tolist() for i in chosen])
    out = out.to(Device("cpu", threads))
    assert ops.add_rows(out, addresses) is out
    assert_close(out, expected, relative=1e-6, absolute=1e-6)


@pytest.mark.parametrize("name", ["place_rows", "add_rows"])
def test_rows_are_placed_in_memory_that_fits(name):
    op = getattr(ops, name)
    out, rows = Tensor.zeros((3, 5)), Tensor.zeros((3,), "int64")
    for bad in (Tensor.zeros((3,), "int32"), Tensor.zeros((4,), "int64")):
        with pytest.raises(TensorError, match=f"{name}: rows"):
            op(out, bad)
    with pytest.raises(TensorError, match=f"{name}: out"):
        op(Tensor.zeros((3, 5), "float16"), rows)
    with pytest.raises(TensorError, match="read-only"):
        op(Tensor.from_buffer(bytes(60), "float32", (3, 5)), rows)


@given(data=st.data(), shape=sizes((1, 9), (1, 300), (0, 12)), threads=THREADS)
def test_scatter_add(data, shape, threads):
    rows, dim, n = shape
    out, values = data.draw(tensors((rows, dim))), data.draw(tensors((n, dim)))
    where = data.draw(indices(n, rows))
    expected = reference.scatter_add(out.tolist(), where.tolist(), values.tolist())
    out = out.to(Device("cpu", threads))
    assert ops.scatter_add(out, where, values) is out
    assert_close(out, expected, relative=1e-6, absolute=1e-4)


@given(data=st.data(), shape=sizes((1, 9), (1, 300), (0, 12)), threads=THREADS)
def test_scatter_add_by_index(data, shape, threads):
    rows, dim, n = shape
    out, values, scales = (data.draw(tensors(s)) for s in ((rows, dim), (n, dim), (n,)))
    where = data.draw(indices(n, rows))
    expected = reference.scatter_add(out.tolist(), where.tolist(), values.tolist(), scales.tolist())
    out = out.to(Device("cpu", threads))
    assert ops.scatter_add_by_index(out, where, values, scales) is out
    assert_close(out, expected, relative=1e-6, absolute=2e-3)


def test_duplicates_add_up_in_their_order():
    # in float32, 2^25 + 1 - 2^25 is 0 from the left and would be 1 in another order
    out, where = Tensor.zeros((2, 200)), Tensor.from_list([1, 1, 1], "int32")
    values = Tensor.from_list([[2.0**25] * 200, [1.0] * 200, [-(2.0**25)] * 200])
    for threads in (1, 2, 3):
        assert ops.scatter_add(out.fill_(0).to(Device("cpu", threads)), where, values).tolist() == [[0.0] * 200] * 2
    backwards = Tensor.from_list([[2.0**25] * 200, [-(2.0**25)] * 200, [1.0] * 200])
    assert ops.scatter_add(out.fill_(0), where, backwards).tolist() == [[0.0] * 200, [1.0] * 200]


@given(data=st.data(), shape=sizes((1, 13), (0, 50)), dtype=float_types, threads=THREADS)
def test_gather_by_value(data, shape, dtype, threads):
    n, dim = shape
    x, keys, value = data.draw(tensors(shape, dtype)), data.draw(indices(n, 3)), data.draw(st.integers(0, 3))
    rows, found = ops.gather_by_value(x.to(Device("cpu", threads)), keys, value)
    expected_rows, expected = reference.gather_by_value(x.tolist(), keys.tolist(), value)
    assert found.tolist() == expected and found.dtype.name == "int32"
    assert rows.shape == (len(expected), dim)
    assert rows.tolist() == expected_rows


@given(data=st.data(), shape=sizes((1, 13), (1, 50)))
def test_grouping_by_every_key_and_putting_back_gives_the_tensor_again(data, shape):
    x, keys, back = data.draw(tensors(shape)), data.draw(indices(shape[0], 4)), Tensor.zeros(shape)
    for value in range(4):
        rows, where = ops.gather_by_value(x, keys, value)
        ops.scatter_add_by_index(back, where, rows)
    assert bits(back) == bits(x)


@pytest.mark.parametrize("index", [-1, 5, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_an_index_out_of_range_is_named(index, dtype):
    where = Tensor.from_list([0, 4, index, 99], dtype)
    message = rf"indices\[2\] is {index}, expected 0 to 4"
    with pytest.raises(TensorError, match=message):
        ops.gather(Tensor.zeros((5, 3)), where)
    with pytest.raises(TensorError, match=message):
        ops.scatter_add(Tensor.zeros((5, 3)), where, Tensor.zeros((4, 3)))
    with pytest.raises(TensorError, match=message):
        ops.scatter_add_by_index(Tensor.zeros((5, 3)), where, Tensor.zeros((4, 3)))


def test_an_index_beyond_32_bits_is_named():
    with pytest.raises(TensorError, match=rf"indices\[0\] is {2**32}, expected 0 to 4"):
        ops.gather(Tensor.zeros((5, 3)), Tensor.from_list([2**32], "int64"))


def test_a_key_beyond_64_bits_is_refused():
    with pytest.raises(TensorError, match=f"value {2**64 + 3} is no int64"):
        ops.gather_by_value(Tensor.zeros((5, 2)), Tensor.from_list([3, 1, 3, 0, 2], "int64"), 2**64 + 3)


def test_gathering_refuses_what_does_not_fit():
    table, where = Tensor.zeros((5, 3)), Tensor.from_list([1, 2], "int32")
    with pytest.raises(TensorError, match="indices is float32, expected int32 or int64"):
        ops.gather(table, Tensor.zeros((2,)))
    with pytest.raises(TensorError, match="table is int8, expected one of"):
        ops.gather(table.astype("int8"), where)
    with pytest.raises(TensorError, match=r"indices has shape \(1, 2\)"):
        ops.gather(table, where.reshape(1, 2))
    with pytest.raises(TensorError, match=r"values has shape \(2, 2\), expected \(2, 3\)"):
        ops.scatter_add(table, where, Tensor.zeros((2, 2)))
    with pytest.raises(TensorError, match=r"scales has shape \(3\,\), expected \(2\)"):
        ops.scatter_add_by_index(table, where, Tensor.zeros((2, 3)), Tensor.zeros((3,)))
    with pytest.raises(TensorError, match=r"keys has shape \(2,\), expected \(5\)"):
        ops.gather_by_value(table, where, 1)
    with pytest.raises(TensorError, match="keys is uint8"):
        ops.gather_by_value(table, Tensor.zeros((5,), "uint8"), 1)
    with pytest.raises(TensorError, match="out is read-only"):
        ops.scatter_add(Tensor.from_buffer(bytes(60), "float32", (5, 3)), where, Tensor.zeros((2, 3)))
