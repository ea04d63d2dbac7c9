import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.kernels._formats import FORMATS
from pio.kernels.linear import ROW_BLOCK
from pio.ops import compilation
from pio.ops.quantized import record_bytes
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.head_linear import head_linear
from pio.testing.reference.linear import linear
from pio.testing.strategies import FLOATS, sizes, tensors, views

THREADS = st.sampled_from((1, 2, 3))
# tokens, heads, inputs, outputs
SHAPES = sizes((1, 9), (1, 5), (1, 70), (1, 40)) if compilation.enabled() else sizes((1, 5), (1, 3), (1, 19), (1, 18))


def of_head(x, h):
    return x[:, h].contiguous()


@pytest.mark.parametrize("kind", FLOATS)
@given(data=st.data(), shape=SHAPES, threads=THREADS)
def test_head_linear(data, kind, shape, threads):
    rows, heads, k, n = shape
    x, weight = data.draw(views(data.draw(tensors((rows, heads, k))))), data.draw(tensors((heads, n, k), kind))
    out = Tensor.full((rows, heads, n), 7.0)
    assert ops.head_linear(x.to(Device("cpu", threads)), weight, out=out) is out
    bound = head_linear(
        *([[[abs(v) for v in row] for row in rows] for rows in nested] for nested in (x.tolist(), weight.tolist()))
    )
    slack = [[[2e-6 * v for v in row] for row in token] for token in bound]
    assert_close(out, head_linear(x.tolist(), weight.tolist()), absolute=slack)
    # matrices with gaps between them, as in a fused projection, give the same bits, and those of one head alone
    assert bits(ops.head_linear(x.to(Device("cpu", threads)), data.draw(views(weight, axes=(0,))))) == bits(out)
    for h in range(heads):
        assert bits(ops.linear(of_head(x, h).to(Device("cpu", 1)), weight[h])) == bits(of_head(out, h))


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES, threads=THREADS)
def test_packed_heads_are_quantized_linears(data, form, shape, threads):
    rows, heads, k, n = shape
    x, weight = data.draw(views(data.draw(tensors((rows, heads, k))))), data.draw(tensors((heads, n, k)))
    packed = ops.pack_heads(data.draw(views(weight)).to(Device("cpu", threads)), form)
    out = Tensor.full((rows, heads, n), 7.0)
    scratch = Tensor.zeros((rows * heads * record_bytes(k) + 5,), "uint8")
    assert ops.head_linear(x.to(Device("cpu", threads)), packed, out=out, scratch=scratch) is out
    for h in range(heads):
        alone = ops.quantized_linear(of_head(x, h).to(Device("cpu", 1)), ops.pack(weight[h], form))
        assert bits(of_head(out, h)) == bits(alone)
    wide = ops.head_linear(x.to(Device("cpu", threads)), packed)
    assert wide.shape == (rows, heads, -(-n // 16) * 16)
    assert bits(wide[:, :, :n]) == bits(out)


def test_many_rows():
    """More rows than stay in the cache together, and so many that both row tiles and single rows are met."""
    rows, heads, k, n = (ROW_BLOCK + 7, 2, 33, 13) if compilation.enabled() else (7, 2, 5, 4)
    x = Tensor.from_list([((7 * i) % 13 - 6) / 4 for i in range(rows * heads * k)]).reshape(rows, heads, k)
    weight = Tensor.from_list([((5 * i) % 11 - 5) / 8 for i in range(heads * n * k)]).reshape(heads, n, k)
    found = ops.head_linear(x, weight)
    assert_close(found, head_linear(x.tolist(), weight.tolist()))
    for r in (0, rows - 1):
        assert bits(ops.head_linear(x[r : r + 1], weight)) == bits(found[r : r + 1])


@given(data=st.data(), shape=sizes((1, 4), (1, 5), (1, 7), (1, 20)), kind=st.sampled_from(FLOATS))
def test_absorbed_weights(data, shape, kind):
    """Queries times the transposed matrix meet latents as queries met keys."""
    heads, key_dim, value_dim, rank = shape
    weight = data.draw(tensors((heads * (key_dim + value_dim), rank), kind))
    keys, values = ops.absorbed_weights(weight, heads, key_dim, value_dim)
    assert keys.dtype is values.dtype is weight.dtype
    stored = weight.tolist()
    for h in range(heads):
        rows = stored[h * (key_dim + value_dim) : (h + 1) * (key_dim + value_dim)]
        assert keys[h].tolist() == [list(column) for column in zip(*rows[:key_dim], strict=True)]
        assert values[h].tolist() == rows[key_dim:]
    assert values.storage is weight.storage
    x = data.draw(tensors((3, heads, rank)))
    for h in range(heads):
        expected = linear(of_head(x, h).tolist(), values[h].tolist())
        assert_close(of_head(ops.head_linear(x, values), h), expected, absolute=2e-4 * rank, relative=1e-5)


def test_no_tokens():
    for weight in (Tensor.zeros((2, 3, 5)), ops.pack_heads(Tensor.zeros((2, 3, 5)), "int8")):
        out = Tensor.zeros((0, 2, 3))
        assert ops.head_linear(Tensor.zeros((0, 2, 5)), weight, out=out).shape == (0, 2, 3)


def test_errors_name_the_argument():
    x, weight = Tensor.zeros((3, 2, 5)), Tensor.zeros((2, 4, 5))
    packed = ops.pack_heads(weight, "int8")
    for wrong, match in (
        ((x.reshape(6, 5), weight), r"head_linear: x has shape \(6, 5\)"),
        ((x.astype("float16"), weight), "head_linear: x is float16, expected float32"),
        ((Tensor.zeros((3, 5, 2)).transpose(0, 2, 1), weight), "head_linear: x has strides"),
        ((x, weight[:1]), r"head_linear: weight has shape \(1, 4, 5\), expected \(2, any, 5\)"),
        ((x, weight[:, :, :4]), r"head_linear: weight has shape \(2, 4, 4\)"),
        ((x, weight.astype("int32")), "head_linear: weight is int32, expected one of float32"),
        ((x, Tensor.zeros((2, 5, 4)).transpose(0, 2, 1)), "head_linear: weight has strides"),
        ((Tensor.zeros((3, 3, 5)), packed), r"head_linear: weight has shape \(32, 5\), expected \(3 heads"),
        ((x, ops.pack(Tensor.zeros((24, 5)), "int8")), r"head_linear: weight has shape \(24, 5\)"),
        ((Tensor.zeros((3, 2, 6)), packed), r"head_linear: weight has shape \(32, 5\)"),
        ((x, weight, Tensor.zeros((3, 2, 5))), r"head_linear: out has shape \(3, 2, 5\), expected \(3, 2, 4\)"),
        ((x, packed, Tensor.zeros((3, 2, 17))), r"head_linear: out has shape \(3, 2, 17\), expected \(3, 2, 16\)"),
        ((x, packed, Tensor.zeros((3, 8))), r"head_linear: out has shape \(3, 8\)"),
    ):
        with pytest.raises(TensorError, match=match):
            ops.head_linear(*wrong[:2], out=wrong[2] if len(wrong) > 2 else None)
    with pytest.raises(TensorError, match=r"head_linear: scratch has 3 bytes, expected at least 576"):
        ops.head_linear(x, packed, scratch=Tensor.zeros((3,), "uint8"))
    with pytest.raises(TensorError, match=r"pack_heads: weight has shape \(4, 5\), expected \(heads, n, k\)"):
        ops.pack_heads(weight[0], "int8")
    with pytest.raises(TensorError, match="pack_heads: weight is int32"):
        ops.pack_heads(weight.astype("int32"), "int8")
    with pytest.raises(TensorError, match=r"absorbed_weights: weight has shape \(8, 5\), expected \(2 heads x \(2 of"):
        ops.absorbed_weights(weight.reshape(8, 5), 2, 2, 3)
