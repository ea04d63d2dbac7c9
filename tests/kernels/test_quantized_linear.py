import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.kernels._formats import FORMATS
from pio.kernels.quantized_linear import CACHE, ROWS
from pio.kernels.simd import JIT
from pio.ops.quantized import PackedWeight, packed_shape, record_bytes
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import linear as plain
from pio.testing.reference import quantized_linear as reference
from pio.testing.strategies import sizes, tensors

SHAPES = sizes((1, 19), (1, 140), (1, 70))
THREADS = st.sampled_from((1, 2, 3))
INF, NAN = math.inf, math.nan


def magnitudes(rows, factor=1.0):
    return [[abs(v) * factor for v in row] for row in rows]


def bounds(weight, form):
    """At least the magnitude of each weight, and of the scale and the minimum that make it."""
    if form == "int4_zero_point":  # these are multiplied apart, and may be larger than what they make
        return [[3 * max(map(abs, row))] * len(row) for row in weight]
    return magnitudes(weight)


def doubtful(row):
    """A step for each number that lies so near between two whole ones that either may be taken."""
    steps = [step for step in reference.steps(row) for _ in range(32)]
    return [s if s and abs(abs(v / s) % 1.0 - 0.5) < 1e-4 else 0.0 for v, s in zip(row, steps, strict=False)]


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES, biased=st.booleans(), add=st.booleans(), threads=THREADS)
def test_quantized_linear(data, form, shape, biased, add, threads):
    rows, k, n = shape
    factor = data.draw(st.sampled_from((1.0, 1e-25, 1e25)))
    x = Tensor.from_list(
        [[v * factor for v in row] for row in data.draw(tensors((rows, k), special=(0.0,))).tolist()]
    ).reshape(rows, k)
    packed = ops.pack(data.draw(tensors((n, k))), form)
    bias = data.draw(tensors((n,))) if biased else None
    out = data.draw(tensors((rows, n)))
    before, weight = out.tolist(), ops.unpack(packed).tolist()
    shift = bias.tolist() if bias is not None else None
    expected = reference.quantized_linear(x.tolist(), weight, shift, before if add else None)
    error = [[a + 2e-6 * abs(v) for a, v in zip(doubtful(row), row, strict=True)] for row in x.tolist()]
    slack = plain.linear(
        error,
        bounds(weight, form),
        [1e-6 * abs(b) for b in shift] if shift is not None else None,
        magnitudes(before, 1e-6) if add else None,
    )
    assert ops.quantized_linear(x.to(Device("cpu", threads)), packed, bias, out=out, add=add) is out
    assert_close(out, expected, absolute=slack)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES)
def test_it_is_near_the_product_of_what_was_not_rounded(data, form, shape):
    rows, k, n = shape
    x, packed = data.draw(tensors((rows, k))), ops.pack(data.draw(tensors((n, k))), form)
    weight = ops.unpack(packed).tolist()
    half = [[0.51 * step for step in reference.steps(row) for _ in range(32)][:k] for row in x.tolist()]
    slack = plain.linear(half, [[w + 1e-9 for w in row] for row in bounds(weight, form)])
    assert_close(ops.quantized_linear(x, packed), plain.linear(x.tolist(), weight), absolute=slack)


def whole_numbers(rows, k):
    """Rows of whole numbers whose groups each have a 127: quantizing changes none of them."""
    return [[127.0 if j % 32 == 0 else float((7 * i + 3 * j) % 11 - 5) for j in range(k)] for i in range(rows)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rows", range(1, 20))
def test_every_height_of_tile_and_a_row_alone(form, rows):
    k, n = 101, 33
    x = Tensor.from_list(whole_numbers(rows, k))
    packed = ops.pack(Tensor.from_list([[float((5 * i + 2 * j) % 13 - 6) for j in range(k)] for i in range(n)]), form)
    weight, found = ops.unpack(packed).tolist(), ops.quantized_linear(x.to(Device("cpu", 2)), packed)
    slack = plain.linear(magnitudes(x.tolist(), 1e-6), bounds(weight, form))
    assert_close(found, plain.linear(x.tolist(), weight), absolute=slack)
    for r in range(rows):
        assert bits(ops.quantized_linear(x[r : r + 1].to(Device("cpu", 1)), packed)) == bits(found[r : r + 1])


@pytest.mark.skipif(not JIT, reason="more arithmetic than the interpreter does in a minute")
@pytest.mark.parametrize("form", FORMATS)
def test_more_activations_than_the_second_level_cache_holds(form):
    k, n = CACHE // ROWS // 80 * 64 + 96, 19  # one block of rows is ROWS high
    rows = 2 * ROWS + 3
    x = Tensor.from_list(whole_numbers(rows, k))
    packed = ops.pack(Tensor.from_list([[float((5 * i + j) % 13 - 6) for j in range(k)] for i in range(n)]), form)
    found = ops.quantized_linear(x.to(Device("cpu", 2)), packed)
    for r in range(rows):
        assert bits(ops.quantized_linear(x[r : r + 1].to(Device("cpu", 1)), packed)) == bits(found[r : r + 1])


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES, threads=THREADS)
def test_a_row_s_bits_depend_on_nothing_but_the_row(data, form, shape, threads):
    rows, k, n = shape
    x, weight = data.draw(tensors((rows, k))), data.draw(tensors((n, k)))
    packed, bias = ops.pack(weight, form), data.draw(tensors((n,)))
    together = ops.quantized_linear(x.to(Device("cpu", threads)), packed, bias)
    first = data.draw(st.integers(0, rows - 1))
    assert bits(ops.quantized_linear(x[first:].to(Device("cpu", 1)), packed, bias)) == bits(together[first:])
    some = data.draw(st.integers(1, n))
    found = ops.quantized_linear(x.to(Device("cpu", 1)), packed.first(some), bias[:some])
    assert bits(found) == bits(together[:, :some]), "the first outputs are those of the whole"


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=sizes((2, 19), (2, 140), (1, 40)), bad=st.sampled_from((INF, -INF, NAN)))
def test_infinity_and_nan_reach_all_of_their_row_and_nothing_else(data, form, shape, bad):
    rows, k, n = shape
    x, packed = data.draw(tensors((rows, k))), ops.pack(data.draw(tensors((n, k))), form)
    clean = ops.quantized_linear(x, packed)
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, k - 1))
    values = x.tolist()
    values[row][column] = bad
    found = ops.quantized_linear(Tensor.from_list(values), packed)
    assert not any(map(math.isfinite, found.tolist()[row]))
    for r in range(rows):
        assert r == row or bits(found[r]) == bits(clean[r])


@pytest.mark.parametrize("form", FORMATS)
def test_zeros(form):
    packed = ops.pack(Tensor.full((5, 70), 0.25), form)
    assert ops.quantized_linear(Tensor.zeros((3, 70)), packed).tolist() == [[0.0] * 5] * 3
    packed = ops.pack(Tensor.zeros((5, 70)), form)
    assert ops.quantized_linear(Tensor.full((3, 70), 2.0), packed).tolist() == [[0.0] * 5] * 3


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0)])
def test_nothing_gives_nothing(form, shape):
    rows, k, n = shape
    packed, bias = ops.pack(Tensor.zeros((n, k)), form), Tensor.full((n,), 1.5)
    assert ops.quantized_linear(Tensor.zeros((rows, k)), packed, bias).tolist() == [[1.5] * n] * rows


def test_add_without_out_adds_to_zeros():
    packed = ops.pack(Tensor.full((5, 3), 2.0), "int8")
    found = ops.quantized_linear(Tensor.full((2, 3), 1.0), packed, add=True)
    assert_close(found, [[6.0] * 5] * 2, relative=1e-3)


WIDTHS = sizes((1, 9), (1, 100), (1, 70), (1, 41), (1, 33))


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=WIDTHS, count=st.integers(0, 3), threads=THREADS)
def test_together_is_one_after_another_to_the_bit(data, form, shape, count, threads):
    rows, k, *widths = shape
    x = data.draw(tensors((rows, k)))
    weights = [ops.pack(data.draw(tensors((n, k))), form) for n in widths[:count]]
    biases = [data.draw(st.one_of(st.none(), tensors((n,)))) for n in widths[:count]]
    outs = [Tensor.full((rows, n), NAN) for n in widths[:count]]
    ops.quantized_linears(x.to(Device("cpu", threads)), weights, outs, biases)
    for weight, bias, out in zip(weights, biases, outs, strict=True):
        assert bits(out) == bits(ops.quantized_linear(x.to(Device("cpu", 1)), weight, bias))


@given(data=st.data(), shape=WIDTHS)
def test_other_formats_and_more_layers_run_one_after_another(data, shape):
    rows, k, *widths = shape
    x = data.draw(tensors((rows, k)))
    forms = (*FORMATS, "int4")
    weights = [ops.pack(data.draw(tensors((n, k))), form) for n, form in zip((*widths, 9), forms, strict=True)]
    scratch = Tensor.full((rows * record_bytes(k),), 77, "uint8")
    for chosen in (weights, weights[:2]):
        outs = [Tensor.empty((rows, weight.shape[0])) for weight in chosen]
        ops.quantized_linears(x, chosen, outs, scratch=scratch)
        assert [bits(out) for out in outs] == [bits(ops.quantized_linear(x, weight)) for weight in chosen]


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES)
def test_only_the_result_and_the_scratch_are_written(data, form, shape):
    rows, k, n = shape
    x, packed = data.draw(tensors((rows, k))), ops.pack(data.draw(tensors((n, k))), form)
    wide, around = Tensor.full((rows * n + 64,), 7.0), Tensor.full((rows * record_bytes(k) + 64,), 77, "uint8")
    out, scratch = wide[32:-32].reshape(rows, n), around[32:-32]
    before = bits(x), bits(packed.data)
    ops.quantized_linear(x, packed, out=out, scratch=scratch)
    assert bits(out) == bits(ops.quantized_linear(x, packed))
    assert wide[:32].tolist() == wide[-32:].tolist() == [7.0] * 32
    assert around[:32].tolist() == around[-32:].tolist() == [77] * 32
    assert (bits(x), bits(packed.data)) == before


def test_what_does_not_fit_is_refused():
    x, packed = Tensor.zeros((2, 70)), ops.pack(Tensor.zeros((5, 70)), "int4")
    refused = [
        (r"x has shape \(2, 71\), expected \(any, 70\)", {"x": Tensor.zeros((2, 71))}),
        (r"x has shape \(70,\), expected", {"x": Tensor.zeros((70,))}),
        ("x is float16, expected float32", {"x": x.astype("float16")}),
        ("x is a strided view", {"x": Tensor.zeros((70, 2)).T}),
        ("x is a list", {"x": [[0.0] * 70]}),
        ("weight is a Tensor, expected a PackedWeight; make one with ops.pack", {"weight": Tensor.zeros((5, 70))}),
        (r"bias has shape \(4,\), expected \(5\)", {"bias": Tensor.zeros((4,))}),
        ("bias is bfloat16, expected float32", {"bias": Tensor.zeros((5,), "bfloat16")}),
        (r"out has shape \(5, 2\), expected \(2, 5\)", {"out": Tensor.zeros((5, 2))}),
        ("out is float16", {"out": Tensor.zeros((2, 5), "float16")}),
        ("out is read-only memory", {"out": Tensor.from_buffer(bytes(40), "float32", (2, 5))}),
        ("scratch has 351 bytes, expected at least 352", {"scratch": Tensor.zeros((351,), "uint8")}),
        ("scratch is float32, expected uint8", {"scratch": Tensor.zeros((352,))}),
        (r"scratch has shape \(2, 160\)", {"scratch": Tensor.zeros((2, 160), "uint8")}),
        ("scratch is read-only memory", {"scratch": Tensor.from_buffer(bytes(352), "uint8", (352,))}),
    ]
    for message, wrong in refused:
        given_all = {"x": x, "weight": packed, **wrong}
        with pytest.raises(TensorError, match=f"^quantized_linear: {message}"):
            ops.quantized_linear(**given_all)
        together = {"out": Tensor.zeros((2, 5)), "bias": None, "scratch": None, **given_all}
        with pytest.raises(TensorError, match=f"^quantized_linears: {message}"):
            ops.quantized_linears(
                together["x"],
                [packed, together["weight"]],
                [Tensor.zeros((2, 5)), together["out"]],
                [None, together["bias"]],
                scratch=together["scratch"],
            )


def test_weights_of_one_job_have_the_same_columns():
    first, second = (ops.pack(Tensor.zeros((5, k)), "int4") for k in (70, 71))
    with pytest.raises(TensorError, match=r"^quantized_linears: x has shape \(2, 70\), expected \(any, 71\)"):
        ops.quantized_linears(Tensor.zeros((2, 70)), [first, second], [Tensor.zeros((2, 5))] * 2)


MEMORY = {  # what lies where in one piece of memory, and which of them must be apart
    "x": ("float32", (2, 70)),
    "weight": ("uint8", packed_shape((5, 70), "int4")),
    "bias": ("float32", (5,)),
    "out": ("float32", (2, 5)),
    "scratch": ("uint8", (352,)),
}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *(("out", name) for name in ("x", "weight", "bias", "scratch")),
        *(("scratch", n) for n in ("x", "weight", "bias")),
    ],
)
def test_what_is_written_lies_apart(written, read):
    memory = bytearray(4096)

    def placed(name):
        kind, shape = MEMORY[name]
        size = math.prod(shape) * (4 if kind == "float32" else 1)
        return Tensor.from_buffer(memoryview(memory)[4 * (name == written) :][:size], kind, shape)

    made = {name: placed(name) if name in (written, read) else Tensor.zeros(s, k) for name, (k, s) in MEMORY.items()}
    x, data, bias, out, scratch = made.values()
    weight = PackedWeight(data, "int4", (5, 70))
    with pytest.raises(TensorError, match=f"^quantized_linear: {written} shares memory with {read}"):
        ops.quantized_linear(x, weight, bias, out=out, scratch=scratch)
    with pytest.raises(TensorError, match=f"^quantized_linears: {written} shares memory with {read}"):
        ops.quantized_linears(x, [weight], [out], [bias], scratch=scratch)
