import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close
from pio.testing.reference import grid_embedding as reference
from pio.testing.strategies import tensors

FLOATS = st.sampled_from(("float32", "float16", "bfloat16"))


@given(
    data=st.data(),
    blocks=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    merge=st.integers(1, 3),
    side=st.integers(1, 7),
    dim=st.integers(1, 40),
    dtype=FLOATS,
    threads=st.sampled_from((1, 2, 3)),
)
def test_add_grid_embedding(data, blocks, merge, side, dim, dtype, threads):
    grid = blocks[0] * merge, blocks[1] * merge
    table = data.draw(tensors((side * side, dim), dtype))
    places = 2 * reference.places(*grid, merge)  # two time steps of a video
    first = data.draw(st.integers(0, len(places) - 1))
    count = data.draw(st.integers(0, len(places) - first))
    x = data.draw(tensors((count, dim)))
    found = [reference.grid_embedding(table.tolist(), grid, place) for place in places[first : first + count]]
    expected = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(x.tolist(), found, strict=True)]
    x = x.to(Device("cpu", threads))
    assert ops.add_grid_embedding(x, table, grid, first=first, merge=merge) is x
    assert_close(x, expected, relative=1e-5, absolute=1e-5)


def test_corners_of_a_grid_are_those_of_the_table():
    table = Tensor.from_list([[float(100 * y + x)] for y in range(5) for x in range(5)])
    x = ops.add_grid_embedding(Tensor.zeros((3 * 9, 1)), table, (3, 9)).tolist()
    assert [x[0], x[8], x[18], x[26]] == [[0.0], [4.0], [400.0], [404.0]]
    assert x[13] == [202.0]  # and the middle is the middle


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table": Tensor.zeros((8, 5))}, "square"),
        ({"table": Tensor.zeros((9, 4))}, "table"),
        ({"grid": (4, 3), "merge": 2}, "whole blocks"),
        ({"grid": (0, 2)}, "whole blocks"),
        ({"first": -1}, "from 0 on"),
        ({"x": Tensor.from_buffer(bytes(40), "float32", (2, 5))}, "read-only"),
    ],
)
def test_what_does_not_fit_is_refused(change, says):
    given = {"x": Tensor.zeros((2, 5)), "table": Tensor.zeros((9, 5)), "grid": (4, 4), **change}
    with pytest.raises(TensorError, match=says):
        ops.add_grid_embedding(given.pop("x"), given.pop("table"), given.pop("grid"), **given)
