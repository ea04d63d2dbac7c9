"""A sum behind a gate on a GPU beside the CPU's."""

import pytest
from gpu_case import bytes_of, numbers, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.kernels.cuda.add_gated import add_gated


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@settings(max_examples=5)
@given(rows=st.integers(1, 4), n=st.integers(1, 1100), k=st.integers(1, 1300))
def test_add_gated(dtype, rows, n, k):
    out, y, x = numbers(rows, n), numbers(rows, n, seed=2), numbers(rows, k, seed=3)
    weight = numbers(1, k, seed=4, dtype=dtype)
    wanted = ops.add_gated(out.clone(), y, x, weight)
    run(add_gated[dtype], out, y, x, weight, 0, rows, n, k, reading=(y, x, weight))
    assert relative_error(out, wanted.reshape(-1).tolist()) <= 1e-5  # of what opens the gate some bits cancel


def test_bits_of_a_row_do_not_depend_on_others():
    y, x, weight, found = numbers(3, 1030, seed=2), numbers(3, 70, seed=3), numbers(1, 70, seed=4), []
    for first, last, multiprocessors in ((0, 3, 1), (1, 3, 3), (1, 2, 2)):
        out = numbers(3, 1030)[first:last].clone()
        given = y[first:last].clone(), x[first:last].clone(), weight
        run(add_gated["float32"], out, *given, 0, last - first, 1030, 70, multiprocessors=multiprocessors)
        found.append(bytes_of(out[1 - first]))
    assert found[0] == found[1] == found[2]
