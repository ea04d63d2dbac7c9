"""The register tiles by themselves: strides wider than rows, odd tails, and memory around them left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from pio.kernels.sizes import PAIRS as HERE
from pio.kernels.tiles import dot_tile, outer_tile, pair_tile
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import linear, matmul
from pio.testing.strategies import tensors, views


def compiled_dot(rows, columns, dtype):
    tile = dot_tile(rows, columns)[dtype]

    @njit(error_model="numpy")
    def run(y, x, w, k, ldy, ldx, ldw, add):
        tile(y, x, w, k, ldy, ldx, ldw, add)

    return run


def compiled_outer(rows, vectors, dtype, accumulators=24):
    tile = outer_tile(rows, vectors, accumulators)[dtype]

    @njit(error_model="numpy")
    def run(c, a, b, n, ldc, lda, ldb):
        tile(c, a, b, n, ldc, lda, ldb)

    return run


def compiled_pairs(rows, columns, pairs):
    tile = pair_tile(rows, columns, pairs)

    @njit(error_model="numpy")
    def run(y, x, w, k, ldy, ldx, ldw, add):
        tile(y, x, w, k, ldy, ldx, ldw, add)

    return run


DOT = {(r, c, d): compiled_dot(r, c, d) for r, c, d in [(4, 6, "float32"), (2, 3, "bfloat16"), (1, 8, "float16")]}
OUTER = {(r, v, d): compiled_outer(r, v, d) for r, v, d in [(6, 4, "bfloat16"), (2, 1, "float32"), (1, 3, "float16")]}
OUTER |= {(r, v, d, 4): compiled_outer(r, v, d, 4) for r, v, d in [(6, 4, "bfloat16"), (1, 5, "float16")]}

# as this processor multiplies pairs, and as any other does
PAIRS = {
    (r, c, how): compiled_pairs(r, c, how) for how in {"portable", HERE} for r, c in [(4, 6), (2, 3), (1, 7), (3, 1)]
}


def magnitudes(rows, factor=1.0):
    return [[abs(v) * factor for v in row] for row in rows]


def around(view, before):
    """What surrounds a view: its wider tensor as bytes, with the view's elements put back as they were."""
    after = view.clone()
    view.copy_(before)
    wide = view.storage.memoryview().tobytes()
    view.copy_(after)
    return wide


@pytest.mark.parametrize("case", DOT)
@given(data=st.data(), k=st.integers(0, 70), add=st.booleans())
def test_dot_tile(case, data, k, add):
    rows, columns, dtype = case
    x, w = data.draw(views(data.draw(tensors((rows, k))))), data.draw(views(data.draw(tensors((columns, k), dtype))))
    y = data.draw(views(data.draw(tensors((rows, columns)))))
    before, wide = y.clone(), y.storage.memoryview().tobytes()
    old = before.tolist() if add else None
    DOT[case](y.address, x.address, w.address, k, y.strides[0], x.strides[0], w.strides[0], int(add))
    old_slack = magnitudes(old, 1e-6) if add else None
    slack = linear.linear(magnitudes(x.tolist(), 1e-6), magnitudes(w.tolist()), None, old_slack)
    assert_close(y, linear.linear(x.tolist(), w.tolist(), None, old), absolute=slack)
    assert around(y, before) == wide


def whole_steps(x):
    """Rows with zeros behind them up to a multiple of 32."""
    rows, k = x.shape
    wide = Tensor.zeros((rows, -(-k // 32) * 32), "bfloat16")
    if k:
        wide[:, :k].copy_(x)
    return wide


@pytest.mark.parametrize("case", PAIRS)
@given(data=st.data(), k=st.integers(0, 100), add=st.booleans())
def test_pair_tile(case, data, k, add):
    rows, columns, _ = case
    x = data.draw(tensors((rows, k), "bfloat16"))
    wide_x, w = data.draw(views(whole_steps(x))), data.draw(views(data.draw(tensors((columns, k), "bfloat16"))))
    y = data.draw(views(data.draw(tensors((rows, columns)))))
    before, wide = y.clone(), y.storage.memoryview().tobytes()
    old = before.tolist() if add else None
    PAIRS[case](y.address, wide_x.address, w.address, k, y.strides[0], wide_x.strides[0], w.strides[0], int(add))
    old_slack = magnitudes(old, 1e-6) if add else None
    slack = linear.linear(magnitudes(x.tolist(), 1e-6), magnitudes(w.tolist()), None, old_slack)
    assert_close(y, linear.linear(x.tolist(), w.tolist(), None, old), absolute=slack)
    assert around(y, before) == wide


@pytest.mark.parametrize("k", [1, 31, 32, 33, 100])
@given(data=st.data())
def test_pairs_have_the_same_bits_in_every_tile_and_on_every_processor(k, data):
    x, w = data.draw(tensors((4, k), "bfloat16")), data.draw(tensors((7, k), "bfloat16"))
    wide = whole_steps(x)
    for how in {"portable", HERE}:
        found = Tensor.zeros((4, 7))
        alike = how if HERE == "bfdot" else HERE  # ARM's instruction rounds otherwise
        for r in range(4):
            PAIRS[1, 7, alike](found[r].address, wide[r].address, w.address, k, 7, wide.shape[1], k, 0)
        for rows, columns in ((r, c) for r, c, of in PAIRS if of == how):
            y = Tensor.zeros((rows, columns))
            PAIRS[rows, columns, how](y.address, wide.address, w.address, k, columns, wide.shape[1], k, 0)
            assert bits(y) == bits(found[:rows, :columns])


@pytest.mark.parametrize("case", OUTER)
@given(data=st.data(), n=st.integers(1, 20))
def test_outer_tile(case, data, n):
    rows, vectors, dtype = case[:3]
    a = data.draw(views(data.draw(tensors((rows, n)))))
    b = data.draw(views(data.draw(tensors((n, 16 * vectors), dtype))))
    c = data.draw(views(data.draw(tensors((rows, 16 * vectors)))))
    before, wide = c.clone(), c.storage.memoryview().tobytes()
    OUTER[case](c.address, a.address, b.address, n, c.strides[0], a.strides[0], b.strides[0])
    # the old c is one more product: with 1
    left = [[1.0, *row] for row in a.tolist()]
    for r, old in enumerate(before.tolist()):
        right = [old, *b.tolist()]
        slack = matmul.matmul(magnitudes(left[r : r + 1], 1e-6), magnitudes(right))
        assert_close(c[r : r + 1], matmul.matmul(left[r : r + 1], right), absolute=slack)
    assert around(c, before) == wide


@given(data=st.data(), n=st.integers(0, 9))
def test_an_outer_product_has_the_same_bits_however_many_columns_are_walked_together(data, n):
    a, b, c = (data.draw(tensors(*of)) for of in (((6, n),), ((n, 64), "bfloat16"), ((6, 64),)))
    whole, cut = c.clone(), c.clone()
    OUTER[6, 4, "bfloat16"](whole.address, a.address, b.address, n, 64, n, 64)
    OUTER[6, 4, "bfloat16", 4](cut.address, a.address, b.address, n, 64, n, 64)
    assert bits(whole) == bits(cut)


@pytest.mark.parametrize("k", [1, 15, 16, 17, 48])
def test_a_dot_product_has_the_same_bits_in_every_tile(k):
    x = Tensor.from_list([[0.1 * i + 0.3 / (j + 1) for j in range(k)] for i in range(4)])
    w = Tensor.from_list([[0.7 / (i + 1) - 0.01 * j for j in range(k)] for i in range(6)])
    whole = Tensor.zeros((4, 6))
    DOT[4, 6, "float32"](whole.address, x.address, w.address, k, 6, k, k, 0)
    one = compiled_dot(1, 1, "float32")
    for r in range(4):
        for c in range(6):
            y = Tensor.zeros((1,))
            one(y.address, x[r].address, w[c].address, k, 1, k, k, 0)
            assert y.item() == whole[r, c].item()


def test_outer_tile_adds_nothing_for_no_products():
    c = Tensor.full((2, 16), 5.0)
    OUTER[2, 1, "float32"](c.address, 0, 0, 0, 16, 1, 16)
    assert c.tolist() == [[5.0] * 16] * 2
