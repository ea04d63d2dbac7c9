import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.dtypes import uint8
from pio.errors import TensorError
from pio.kernels._formats import FORMATS
from pio.ops.experts import expert_row_bytes
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import experts as reference
from pio.testing.strategies import FLOATS, sizes, tensors

SHAPES = sizes((1, 13), (1, 90), (1, 70), (2, 9))  # tokens, width, outputs, experts
THREADS = st.sampled_from((1, 2, 3))


def choose(tokens, k, experts, seed=0):
    """Choices that leave some experts without tokens."""
    logits = [[math.sin(1.7 * t + 2.3 * e + seed) - (e % 3 == 1) * 9 for e in range(experts)] for t in range(tokens)]
    return ops.route(Tensor.from_list(logits).reshape(tokens, experts), out=ops.Choices.empty(tokens, k, experts))


def numbers(rows, columns, seed, dtype="float32"):
    values = [[math.sin(0.37 * r * columns + 1.3 * c + seed) for c in range(columns)] for r in range(rows)]
    return Tensor.from_list(values, dtype).reshape(rows, columns)


def by_token(y, choices):
    """Rows in the order of the choices, as lists by token and rank."""
    rows = y.tolist()
    return [[rows[place] for place in places] for places in choices.places.tolist()]


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=SHAPES, two=st.booleans(), threads=THREADS)
def test_experts_of_floats(data, dtype, shape, two, threads):
    tokens, width, n, experts = shape
    k = data.draw(st.integers(1, min(4, experts)))
    x, choices = data.draw(tensors((tokens, width))), choose(tokens, k, experts)
    projections = [
        ops.ExpertWeights([numbers(n, width, 7 * e + i, dtype) for e in range(experts)]) for i in range(1 + two)
    ]
    outs = [Tensor.full((tokens * k, n), math.nan) for _ in projections]
    ops.expert_linears(x.to(Device("cpu", threads)), choices, projections, outs)
    ids = choices.ids.tolist()
    for projection, out in zip(projections, outs, strict=True):
        weights = [matrix.tolist() for matrix in projection.matrices]
        wanted = reference.expert_linears(x.tolist(), ids, weights)
        most = 1e-6 * width * max([abs(v) for row in x.tolist() for v in row], default=0.0) + 1e-9
        for rows, expected in zip(by_token(out, choices), wanted, strict=True):
            for row, values in zip(rows, expected, strict=True):
                assert_close(Tensor.from_list(row), values, absolute=[most] * n)


@pytest.mark.parametrize("form", [*FORMATS, *FLOATS, "rounded"])
@given(shape=SHAPES, k=st.integers(1, 4), threads=THREADS)
def test_an_expert_gives_the_bits_of_a_linear_layer(form, shape, k, threads):
    """Whatever else is in the batch: each row is that of the dense operation on the expert's matrix."""
    tokens, width, n, experts = shape
    k = min(k, experts)
    x, choices = numbers(tokens, width, 0.1), choose(tokens, k, experts)
    made = [numbers(n, width, 11 * e, "bfloat16" if form == "rounded" else "float32") for e in range(experts)]
    matrices = [ops.pack(m, form) for m in made] if form in FORMATS else made
    if form in FLOATS:
        matrices = [m.astype(form) for m in made]
    weights, out = ops.ExpertWeights(matrices), Tensor.full((tokens * k, n), math.nan)
    ops.expert_linears(x.to(Device("cpu", threads)), choices, [weights], [out], rounds=form == "rounded")
    dense = ops.quantized_linear if form in FORMATS else ops.bfloat16_linear if form == "rounded" else ops.linear
    places = choices.places.tolist()
    for t, ids in enumerate(choices.ids.tolist()):
        for j, expert in enumerate(ids):
            wanted = dense(x[t : t + 1].to(Device("cpu", 1)), matrices[expert])
            assert bits(out[places[t][j] : places[t][j] + 1]) == bits(wanted)


@pytest.mark.parametrize("form", ["int4", "bfloat16"])
def test_rows_in_order_are_taken_as_they_are(form):
    tokens, k, experts, width, n = 6, 2, 5, 40, 33
    choices = choose(tokens, k, experts)
    made = [numbers(n, width, e) for e in range(experts)]
    weights = ops.ExpertWeights([ops.pack(m, form) if form in FORMATS else m.astype(form) for m in made])
    x, out, other = numbers(tokens, width, 0.5), Tensor.empty((tokens * k, n)), Tensor.empty((tokens * k, n))
    ops.expert_linears(x, choices, [weights], [out])
    rows = ops.gather(x, Tensor.from_list([i // k for i in choices.order.tolist()], "int32"))
    ops.expert_linears(rows, choices, [weights], [other], grouped=True)
    assert bits(out) == bits(other)


@given(data=st.data(), shape=sizes((0, 9), (1, 70), (2, 7)), k=st.integers(1, 3), threads=THREADS)
def test_add_choices(data, shape, k, threads):
    tokens, n, experts = shape
    k = min(k, experts)
    choices = choose(tokens, k, experts)
    y, out = data.draw(tensors((tokens * k, n))), data.draw(tensors((tokens, n)))
    wanted = reference.add_choices(out.tolist(), by_token(y, choices), choices.weights.tolist())
    slack = [[1e-5 * (1.0 + max(map(abs, row)))] * n for row in wanted]
    most = max([abs(v) for row in y.tolist() for v in row], default=0.0)
    out = out.to(Device("cpu", threads))
    assert ops.add_choices(out, y, choices.places, choices.weights) is out
    assert_close(out, wanted, absolute=[[s + 1e-6 * most for s in row] for row in slack])


def test_memory_that_is_given_is_enough_and_no_less():
    tokens, k, experts, width, n = 3, 2, 4, 70, 18
    choices, x = choose(tokens, k, experts), numbers(tokens, width, 1.0)
    weights = ops.ExpertWeights([ops.pack(numbers(n, width, e), "int8") for e in range(experts)])
    out, needed = Tensor.empty((tokens * k, n)), expert_row_bytes(weights) * (tokens + tokens * k)
    ops.expert_linears(x, choices, [weights], [out], scratch=Tensor.zeros((needed,), uint8))
    with pytest.raises(TensorError, match=f"scratch has {needed - 1} bytes, expected at least {needed}"):
        ops.expert_linears(x, choices, [weights], [out], scratch=Tensor.zeros((needed - 1,), uint8))


def test_what_does_not_fit_is_refused():
    choices, x, out = choose(3, 2, 4), numbers(3, 6, 1.0), Tensor.empty((6, 5))
    weights = ops.ExpertWeights([numbers(5, 6, e) for e in range(4)])
    other = ops.ExpertWeights([numbers(5, 6, e, "float16") for e in range(4)])
    wide = Tensor.zeros((11, 5))
    few = ops.ExpertWeights([numbers(5, 6, e) for e in range(3)])
    for arguments, message in (
        ((x, choices, [], []), "0 weights and 0 outs"),
        ((x, choices, [weights, other], [out, out]), "weights differ in shape, form"),
        ((x, choices, [few], [out]), "starts has shape"),
        ((x[:2], choices, [weights], [out]), "x has shape"),
        ((x, choices, [weights], [out[:5]]), "out has shape"),
        ((x, choices, [weights], [x]), "out has shape"),
        ((x, choices, [weights], [Tensor.from_buffer(bytes(120), "float32", (6, 5))]), "out is read-only"),
        ((x, choices, [weights, weights], [out, out]), r"outs\[1\] shares memory with outs\[0\]"),
        ((x, choices, [weights, weights], [wide[:6], wide[5:]]), r"outs\[1\] shares memory with outs\[0\]"),
    ):
        with pytest.raises(TensorError, match=f"^expert_linears: {message}"):
            ops.expert_linears(*arguments)
    with pytest.raises(TensorError, match="matrices is empty"):
        ops.ExpertWeights([])
    with pytest.raises(TensorError, match="matrix 1 is"):
        ops.ExpertWeights([numbers(5, 6, 0), numbers(6, 5, 0)])
    with pytest.raises(TensorError, match="a matrix is int32"):
        ops.ExpertWeights([Tensor.zeros((5, 6), "int32")])
    strided = ops.ExpertWeights([numbers(6, 5, e).T for e in range(4)])
    with pytest.raises(TensorError, match="a weight is a strided view"):
        ops.expert_linears(x, choices, [strided], [out])


def test_choices_that_do_not_fit_are_not_added():
    fits = {
        "out": Tensor.zeros((3, 5)),
        "y": Tensor.zeros((6, 5)),
        "places": Tensor.zeros((3, 2), "int32"),
        "weights": Tensor.zeros((3, 2)),
    }
    ops.add_choices(**fits)
    for name, wrong, message in (
        ("out", Tensor.from_buffer(bytes(60), "float32", (3, 5)), "out is read-only"),
        ("y", Tensor.zeros((5, 5)), r"y has shape \(5, 5\), expected \(6, 5\)"),
        ("places", Tensor.zeros((2, 3), "int32"), r"places has shape \(2, 3\), expected \(3, any\)"),
        ("places", Tensor.zeros((3, 2), "int64"), "places is int64"),
        ("weights", Tensor.zeros((3, 1)), r"weights has shape \(3, 1\), expected \(3, 2\)"),
        ("weights", Tensor.zeros((3, 2), "float16"), "weights is float16"),
    ):
        with pytest.raises(TensorError, match=f"^add_choices: {message}"):
            ops.add_choices(**(fits | {name: wrong}))
