"""Packing weights on a GPU beside the CPU's."""

import pytest
from gpu_case import bytes_of, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_norm import numbers

from pio import ops
from pio.kernels import sizes
from pio.kernels._formats import FORMATS
from pio.kernels.cuda import _packing
from pio.ops.quantized import packed_shape
from pio.tensor import Tensor


def packed(form, w, multiprocessors=2):
    """What the kernel makes of a matrix, and the row that float16 cannot hold."""
    rows, k = w.shape
    out, scratch = Tensor.zeros(packed_shape(w.shape, form), "uint8"), Tensor.zeros((sizes.PACKING_FLOATS,))
    run(_packing.pack[form], out, w, scratch, 0, rows, k, reading=(w,), multiprocessors=multiprocessors)
    return out, int(scratch.tolist()[64])


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=8)
@given(
    rows=st.integers(1, 20),
    k=st.integers(1, 130),
    seed=st.integers(1, 9),
    factor=st.sampled_from((1.0, 1e-9, 3e4, 0.0)),
)
def test_pack_is_the_cpu_s_to_the_bit(form, rows, k, seed, factor):
    w = Tensor.from_list([[v * factor for v in row] for row in numbers(rows, k, seed=seed).tolist()]).reshape(rows, k)
    found, bad = packed(form, w)
    assert (bytes_of(found), bad) == (bytes_of(ops.pack(w, form).data), 0)


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_that_float16_cannot_hold_is_told(form):
    w = numbers(9, 70)
    for row, column in ((3, 69), (7, 1)):
        w[row, column : column + 1].fill_(-7e4)
    assert packed(form, w, multiprocessors=1)[1] == 4
