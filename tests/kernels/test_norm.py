import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import norm as reference
from pio.testing.strategies import FLOATS, float_types, sizes, tensors, views

THREADS = st.sampled_from((1, 2, 3))
EPS = st.sampled_from((1e-6, 1e-5, 0.1))


def magnitudes(nested, factor):
    return [magnitudes(v, factor) for v in nested] if isinstance(nested, list) else abs(nested) * factor


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((0, 7), (1, 90)), eps=EPS, threads=THREADS, zero_centred=st.booleans())
def test_rms_norm(data, dtype, shape, eps, threads, zero_centred):
    x, weight = data.draw(tensors(shape)), data.draw(tensors(shape[1:], dtype))
    found = ops.rms_norm(x.to(Device("cpu", threads)), weight, eps, zero_centred=zero_centred)
    w = weight.tolist()
    slack = reference.rms_norm(magnitudes(x.tolist(), 1.0), magnitudes(w, 1e-6), eps)
    if zero_centred:
        slack = reference.rms_norm(magnitudes(x.tolist(), 1e-6), magnitudes(w, 1.0), eps * 1e-12, zero_centred=True)
    expected = reference.rms_norm(x.tolist(), w, eps, zero_centred)
    assert found.shape == shape
    assert_close(found, expected, absolute=slack)


@given(data=st.data(), shape=sizes((1, 5), (1, 4), (1, 40)), dtype=float_types, threads=THREADS, in_place=st.booleans())
def test_rms_norm_of_heads_inside_wider_tokens(data, shape, dtype, threads, in_place):
    tokens, heads, dim = shape
    wide = data.draw(tensors((tokens, 2 * heads + 1, dim)))
    before = wide.tolist()
    x = wide[:, 1 : 1 + heads]
    weight = data.draw(tensors((dim,), dtype))
    found = ops.rms_norm(x.to(Device("cpu", threads)), weight, 1e-6, out=x if in_place else None)
    rows = [head for token in before for head in token[1 : 1 + heads]]
    expected = reference.rms_norm(rows, weight.tolist(), 1e-6)
    nested = [expected[t * heads : (t + 1) * heads] for t in range(tokens)]
    assert_close(found, nested, relative=1e-6, absolute=1e-30)
    if in_place:
        assert found is x
        before = [[*row[:1], *done, *row[1 + heads :]] for row, done in zip(before, found.tolist(), strict=True)]
    assert wide.tolist() == before, "elements outside the heads were touched"


@given(data=st.data(), shape=sizes((1, 6), (1, 70)), threads=THREADS)
def test_rms_norm_of_rows_with_gaps(data, shape, threads):
    x = data.draw(tensors(shape))
    gaps, out = data.draw(views(x, axes=(0, 1))), data.draw(views(Tensor.zeros(shape), axes=(0, 1)))
    weight = data.draw(tensors(shape[1:]))
    assert ops.rms_norm(gaps.to(Device("cpu", threads)), weight, 1e-6, out=out) is out
    assert bits(out) == bits(ops.rms_norm(x.to(Device("cpu", 1)), weight, 1e-6))


@pytest.mark.parametrize("zero_centred", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((0, 7), (1, 90)), eps=EPS, threads=THREADS, in_place=st.booleans())
def test_fused_add_rms_norm(data, dtype, shape, eps, threads, in_place, zero_centred):
    x, residual = data.draw(tensors(shape)), data.draw(tensors(shape))
    weight = data.draw(tensors(shape[1:], dtype))
    total = ops.add(x, residual)
    expected = ops.rms_norm(total.to(Device("cpu", 1)), weight, eps, zero_centred=zero_centred)
    out = x if in_place else None
    found = ops.fused_add_rms_norm(
        x.to(Device("cpu", threads)), residual, weight, eps, out=out, zero_centred=zero_centred
    )
    assert bits(residual) == bits(total)
    assert bits(found) == bits(expected), "fused and separate kernels differ"


@given(data=st.data(), shape=sizes((1, 4), (1, 50)))
def test_fused_add_rms_norm_against_its_reference(data, shape):
    x, residual, weight = (data.draw(tensors(s)) for s in (shape, shape, shape[1:]))
    expected, total = reference.fused_add_rms_norm(x.tolist(), residual.tolist(), weight.tolist(), 1e-6)
    slack = magnitudes(x.tolist(), 1e-6)
    size = math.fsum(abs(v) for row in (*x.tolist(), *residual.tolist()) for v in row)
    found = ops.fused_add_rms_norm(x, residual, weight, 1e-6)
    assert_close(residual, total, relative=1e-7, absolute=slack)
    # where the sum cancels, the norm enlarges the rounding of the sum
    smallest = min(math.sqrt(math.fsum(v * v for v in row) / len(row) + 1e-6) for row in total)
    largest = max(abs(w) for w in weight.tolist())
    assert_close(found, expected, relative=2e-6, absolute=1e-6 * size * largest / smallest)


@pytest.mark.parametrize("dtype", FLOATS)
@given(
    data=st.data(),
    shape=sizes((0, 7), (1, 90)),
    eps=EPS,
    threads=THREADS,
    target=st.sampled_from(("new", "x", "gate")),
)
def test_gated_rms_norm(data, dtype, shape, eps, threads, target):
    x, gate, weight = data.draw(tensors(shape)), data.draw(tensors(shape)), data.draw(tensors(shape[1:], dtype))
    given_ = x.tolist(), gate.tolist(), weight.tolist(), eps
    out = {"new": None, "x": x, "gate": gate}[target]
    found = ops.gated_rms_norm(x.to(Device("cpu", threads)), gate, weight, eps, out=out)
    # far below zero the gate is tiny beside its input, and is allowed to vanish
    assert_close(found, reference.gated_rms_norm(*given_), relative=2e-6, absolute=1e-30)
    assert out is None or found is out


@given(data=st.data(), shape=sizes((1, 5), (1, 4), (1, 3), (2, 40)), threads=THREADS)
def test_gated_rms_norm_of_gates_in_groups(data, shape, threads):
    tokens, groups, each, dim = shape
    x, weight = data.draw(tensors((tokens, groups * each, dim))), data.draw(tensors((dim,)))
    gate = data.draw(tensors((tokens, groups, each + 2, dim)))[:, :, 1 : 1 + each]
    expected = bits(ops.gated_rms_norm(x, gate.contiguous().reshape(tokens, groups * each, dim), weight, 1e-6))
    assert bits(ops.gated_rms_norm(x.to(Device("cpu", threads)), gate, weight, 1e-6)) == expected
    with pytest.raises(TensorError, match=r"gate has shape .*, expected groups of heads of"):
        ops.gated_rms_norm(x, gate[:, :, :, : dim - 1], weight, 1e-6)


@given(data=st.data(), shape=sizes((1, 5), (1, 4), (1, 40)), threads=THREADS)
def test_gated_rms_norm_of_heads_with_gaps(data, shape, threads):
    tokens, heads, dim = shape
    x, gate, weight = data.draw(tensors(shape)), data.draw(tensors(shape)), data.draw(tensors((dim,)))
    flat = (t.reshape(tokens * heads, dim).to(Device("cpu", 1)) for t in (x, gate))
    expected = bits(ops.gated_rms_norm(*flat, weight, 1e-6))
    gaps, out = data.draw(views(x, axes=(0, 1))), data.draw(views(Tensor.zeros(shape), axes=(0, 1)))
    found = ops.gated_rms_norm(gaps.to(Device("cpu", threads)), data.draw(views(gate)), weight, 1e-6, out=out)
    assert found is out
    assert bits(found) == expected


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((0, 7), (1, 90)), eps=EPS, threads=THREADS, biased=st.booleans())
def test_layer_norm(data, dtype, shape, eps, threads, biased):
    x, weight, bias = data.draw(tensors(shape)), data.draw(tensors(shape[1:], dtype)), None
    if biased:
        bias = data.draw(tensors(shape[1:], dtype))
    found = ops.layer_norm(x.to(Device("cpu", threads)), weight, bias, eps)
    shift = None if bias is None else bias.tolist()
    expected = reference.layer_norm(x.tolist(), weight.tolist(), shift, eps)
    largest = max([1.0, *(abs(v) for v in weight.tolist()), *(abs(v) for v in shift or [0.0])])
    assert_close(found, expected, relative=1e-6, absolute=2e-5 * largest)


def test_layer_norm_keeps_its_digits_far_from_zero():
    x = [1e4 + i % 7 for i in range(211)]
    found = ops.layer_norm(Tensor.from_list([x]), Tensor.full((211,), 1.0), None, 1e-5)
    assert_close(found, reference.layer_norm([x], [1.0] * 211, None, 1e-5), absolute=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_norms_of_a_row_that_is_not_finite_leave_the_others_alone(value):
    x = Tensor.from_list([[1.0, 2.0, -3.0, 4.0], [1.0, value, 2.0, 3.0], [5.0, -6.0, 7.0, 8.0]])
    weight = Tensor.full((4,), 2.0)
    for norm in (ops.rms_norm(x, weight, 1e-6), ops.layer_norm(x, weight, weight, 1e-6)):
        middle = norm[1].tolist()
        assert math.isnan(middle[1])
        assert all(math.isfinite(v) for row in (norm[0], norm[2]) for v in row.tolist())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: ops.rms_norm(x, w[:2], 1e-6), r"weight has shape \(2,\), expected \(3\)"),
        (lambda x, w: ops.rms_norm(x.astype("float16"), w, 1e-6), "x is float16, expected float32"),
        (lambda x, w: ops.rms_norm(x, w.astype("int32"), 1e-6), "weight is int32, expected one of float32"),
        (lambda x, w: ops.rms_norm(x.T, w[:2], 1e-6), r"contiguous tokens"),
        (lambda x, w: ops.rms_norm(x, w, 1e-6, out=x.T), r"out has shape \(3, 2\)|out has strides"),
        (lambda x, w: ops.rms_norm(x[0, 0].reshape(()), w, 1e-6), "at least one axis"),
        (
            lambda x, w: ops.rms_norm(x.reshape(1, 2, 1, 3).transpose(1, 2, 0, 3)[:, :, :, ::2], w[:2], 1e-6),
            "strided view",
        ),
        (lambda x, w: ops.layer_norm(x, w, w.astype("float16"), 1e-6), "bias is float16, expected float32"),
        (lambda x, w: ops.layer_norm(x[:, ::2], w[:2], None, 1e-6), "strided view"),
        (lambda x, w: ops.fused_add_rms_norm(x, x[:1], w, 1e-6), r"residual has shape \(1, 3\)"),
        (lambda x, w: ops.fused_add_rms_norm(x, x.clone(), w, 1e-6, out=x[:1]), r"out has shape \(1, 3\)"),
        (lambda x, w: ops.gated_rms_norm(x[0], x[0], w, 1e-6), r"x has shape \(3,\), expected \(rows, dim\) or"),
        (lambda x, w: ops.gated_rms_norm(x, x[:1], w, 1e-6), r"gate has shape \(1, 3\), expected \(2, 3\)"),
        (lambda x, w: ops.gated_rms_norm(x, x, w[:2], 1e-6), r"weight has shape \(2,\), expected \(3\)"),
        (
            lambda x, w: ops.gated_rms_norm(x[:, :2], x[:, ::2], w[:2], 1e-6),
            "gate has strides .* contiguous heads of 2",
        ),
    ],
)
def test_norms_refuse_what_does_not_fit(call, message):
    x, w = Tensor.from_list([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), Tensor.full((3,), 1.0)
    with pytest.raises(TensorError, match=message):
        call(x, w)


def test_fused_add_rms_norm_refuses_the_residual_as_output():
    x, residual = Tensor.zeros((2, 3)), Tensor.zeros((2, 3))
    with pytest.raises(TensorError, match="out shares memory with residual"):
        ops.fused_add_rms_norm(x, residual, Tensor.zeros((3,)), 1e-6, out=residual)


def test_norms_refuse_read_only_results():
    out = Tensor.from_buffer(bytes(24), "float32", (2, 3))
    x, weight = Tensor.zeros((2, 3)), Tensor.zeros((3,))
    with pytest.raises(TensorError, match="out is read-only"):
        ops.rms_norm(x, weight, 1e-6, out=out)
    with pytest.raises(TensorError, match="out is read-only"):
        ops.gated_rms_norm(x, x, weight, 1e-6, out=out)
    with pytest.raises(TensorError, match="residual is read-only"):
        ops.fused_add_rms_norm(x, out, weight, 1e-6)
