"""Searches, sums and rows chosen by index, as cases."""

from __future__ import annotations

import math

from operation_case import Case, integers, numbers

from pio import ops
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

IDS = (2, 0, 2, 1)


def rows_at(act):
    """Call an operation that takes addresses of rows, of some rows of another tensor."""

    def call(out, rows):
        at = [rows[0].address, 0, rows[2].address]
        return act(out, Tensor.from_list(at, "int64", rows.device))

    return call


def spoiled(dtype, *places):
    values = [0.5] * 2003
    for place, value in places:
        values[place] = value
    return lambda: (Tensor.from_list(values, dtype),)


CASES = {
    "gather_by_value": Case(lambda x, k: ops.gather_by_value(x, k, 2), lambda: (numbers(4, 9), integers(*IDS))),
    "gather_by_value of none": Case(
        lambda x, k: ops.gather_by_value(x, k, 5), lambda: (numbers(4, 9), integers(*IDS, dtype="int64"))
    ),
    "scatter_add": Case(
        ops.scatter_add, lambda: (numbers(3, 70), integers(*IDS, dtype="int64"), numbers(4, 70, seed=3)), 1e-6
    ),
    "scatter_add_by_index": Case(
        ops.scatter_add_by_index,
        lambda: (numbers(3, 70), integers(*IDS), numbers(4, 70, seed=3), numbers(4, seed=5)),
        1e-6,
    ),
    "place_rows": Case(rows_at(ops.place_rows), lambda: (numbers(3, 131), numbers(4, 131, seed=2))),
    "add_rows": Case(rows_at(ops.add_rows), lambda: (numbers(3, 131), numbers(4, 131, seed=2))),
    "top_k": Case(lambda x: ops.top_k(x, 5), lambda: (numbers(3, 150),)),
    "top_k of all of a vector": Case(lambda x: ops.top_k(x, 37), lambda: (numbers(37),)),
}
for dtype in FLOATS:
    CASES |= {
        f"gather {dtype}": Case(
            ops.gather, lambda dtype=dtype: (numbers(3, 71, dtype=dtype), integers(*IDS, dtype="int64"))
        ),
        f"first_non_finite {dtype}": Case(ops.first_non_finite, spoiled(dtype, (1999, math.nan), (1033, math.inf))),
        f"first_non_finite of none {dtype}": Case(ops.first_non_finite, spoiled(dtype)),
    }
