"""Rows of a packed weight are a view that multiplies as the whole does."""

from __future__ import annotations

import pytest

from pio import ops
from pio.errors import TensorError
from pio.ops.quantized import FORMATS, PackedWeight
from pio.tensor import Tensor
from pio.testing.compare import bits

ROWS, COLUMNS = 53, 70


def packed(form: str) -> PackedWeight:
    return ops.pack(
        Tensor.from_list([[(11 * i + 7 * j) % 29 / 14 - 1 for j in range(COLUMNS)] for i in range(ROWS)]), form
    )


@pytest.mark.parametrize("form", list(FORMATS))
def test_rows_multiply_as_those_of_the_whole(form: str) -> None:
    weight = packed(form)
    x = Tensor.from_list([[(5 * i + 3 * j) % 13 / 6 - 1 for j in range(COLUMNS)] for i in range(3)])
    whole = ops.quantized_linear(x, weight)
    for first, last in ((0, 16), (16, 48), (32, 53), (48, 53), (0, 53)):
        part = weight.rows(first, last)
        assert part.shape == (last - first, COLUMNS) and part.form is weight.form
        assert part.data.storage is weight.data.storage
        assert bits(ops.quantized_linear(x, part)) == bits(whole[:, first:last])


@pytest.mark.parametrize(("first", "last"), [(1, 16), (0, 17), (-16, 16), (16, 0), (0, 64), (53, 53)])
def test_rows_that_are_no_blocks(first: int, last: int) -> None:
    with pytest.raises(TensorError, match=rf"PackedWeight: rows\({first}, {last}\) of 53"):
        packed("int8").rows(first, last)
