import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import matmul as reference
from pio.testing.strategies import FLOATS, sizes, tensors

THREADS = st.sampled_from((1, 2, 3))


def magnitudes(rows):
    return [[abs(v) for v in row] for row in rows]


def check(a, b, threads, batch=None):
    found = ops.matmul(a.to(Device("cpu", threads)), b).tolist()
    pairs = zip(a.tolist(), b.tolist(), strict=True) if batch else [(a.tolist(), b.tolist())]
    expected, slack = [], []
    for x, y in pairs:
        expected.append(reference.matmul(x, y))
        slack.append([[2e-6 * v for v in row] for row in reference.matmul(magnitudes(x), magnitudes(y))])
    assert_close(found if batch else [found], expected, absolute=slack)


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((1, 15), (1, 9), (1, 50)), threads=THREADS)
def test_matmul(data, dtype, shape, threads):
    m, k, n = shape
    check(data.draw(tensors((m, k))), data.draw(tensors((k, n), dtype)), threads)


@given(data=st.data(), shape=sizes((1, 4), (1, 9), (1, 6), (1, 35)), threads=THREADS)
def test_batches_of_matrices(data, shape, threads):
    batch, m, k, n = shape
    check(data.draw(tensors((batch, m, k))), data.draw(tensors((batch, k, n), "bfloat16")), threads, batch)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 5, 131), (2, 3, 15), (7, 4, 16), (13, 6, 17), (5, 3, 63), (3, 2, 64), (19, 4, 80), (2, 5, 145), (15, 260, 81)],
)
def test_edges_of_tiles_panels_and_depth(m, k, n, threads):
    a = Tensor.from_list([[float((7 * i + 3 * j) % 11 - 5) for j in range(k)] for i in range(m)])
    b = Tensor.from_list([[float((5 * i + 2 * j) % 13 - 6) for j in range(n)] for i in range(k)])
    found = ops.matmul(a.to(Device("cpu", threads)), b)
    assert found.tolist() == reference.matmul(a.tolist(), b.tolist()), "small whole numbers multiply exactly"


@pytest.mark.parametrize(("batch", "m", "n"), [(2, 31, 5), (2, 3, 333), (3, 2, 18), (7, 4, 20)])
def test_batches_over_more_threads(batch, m, n):
    a = Tensor.from_list([[[float((i + j + z) % 7) for j in range(3)] for i in range(m)] for z in range(batch)])
    b = Tensor.from_list([[[float((2 * i + j + z) % 5) for j in range(n)] for i in range(3)] for z in range(batch)])
    expected = [reference.matmul(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    for threads in (3, 5, 8):
        assert ops.matmul(a.to(Device("cpu", threads)), b.astype("float16")).tolist() == expected


@given(data=st.data(), shape=sizes((1, 15), (1, 9), (16, 90)))
def test_columns_do_not_depend_on_how_many_there_are(data, shape):
    m, k, n = shape
    a, b = data.draw(tensors((m, k))), data.draw(tensors((k, n)))
    last = data.draw(st.integers(1, n))
    assert bits(ops.matmul(a, b)[:, :last]) == bits(ops.matmul(a, b[:, :last].contiguous()))


def test_nan_in_one_column_stays_there():
    b = Tensor.from_list([[float("nan") if j == 3 else 1.0 for j in range(21)] for _ in range(4)])
    found = ops.matmul(Tensor.full((2, 4), 1.0), b).tolist()
    assert all([v != v for v in row] == [j == 3 for j in range(21)] for row in found)


def test_what_out_held_does_not_matter():
    a, b = Tensor.full((2, 3), 2.0), Tensor.full((3, 20), 1.0)
    out = Tensor.full((2, 20), float("nan"))
    assert ops.matmul(a, b, out=out) is out
    assert out.tolist() == [[6.0] * 20] * 2


@pytest.mark.parametrize(("m", "k", "n"), [(2, 0, 3), (2, 0, 70), (0, 3, 4), (2, 3, 0)])
def test_empty_sizes(m, k, n):
    assert ops.matmul(Tensor.zeros((m, k)), Tensor.zeros((k, n))).tolist() == Tensor.zeros((m, n)).tolist()


def test_matmul_refuses_what_does_not_fit():
    a = Tensor.zeros((2, 3))
    with pytest.raises(TensorError, match=r"b has shape \(4, 5\), expected \(3, any\)"):
        ops.matmul(a, Tensor.zeros((4, 5)))
    with pytest.raises(TensorError, match=r"b has shape \(3, 5\), expected \(7, 3, any\)"):
        ops.matmul(Tensor.zeros((7, 2, 3)), Tensor.zeros((3, 5)))
    with pytest.raises(TensorError, match=r"a has shape \(3,\), expected"):
        ops.matmul(a[0], a)
    with pytest.raises(TensorError, match="a is float16"):
        ops.matmul(a.astype("float16"), Tensor.zeros((3, 5)))
    with pytest.raises(TensorError, match="b is a strided view"):
        ops.matmul(a, Tensor.zeros((5, 3)).T)
    with pytest.raises(TensorError, match=r"out has shape \(5, 2\)"):
        ops.matmul(a, Tensor.zeros((3, 5)), out=Tensor.zeros((5, 2)))
