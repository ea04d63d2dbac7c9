import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.kernels.bfloat16_linear import ROW_BLOCK
from pio.kernels.simd import JIT
from pio.ops.bfloat16 import rounded_bytes
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import bfloat16_linear as reference
from pio.testing.reference import linear as plain
from pio.testing.strategies import sizes, tensors

SHAPES = sizes((1, 11), (1, 100), (1, 70))
THREADS = st.sampled_from((1, 2, 3))
INF, NAN = math.inf, math.nan


def magnitudes(rows, factor=1.0):
    return [[abs(v) * factor for v in row] for row in rows]


def whole_numbers(rows, k):
    """Small ones, which no rounding changes and which multiply exactly."""
    return [[float((7 * i + 3 * j) % 11 - 5) for j in range(k)] for i in range(rows)]


@given(data=st.data(), shape=SHAPES, biased=st.booleans(), add=st.booleans(), threads=THREADS)
def test_bfloat16_linear(data, shape, biased, add, threads):
    rows, k, n = shape
    factor = data.draw(st.sampled_from((1.0, 1e-25, 1e25)))
    x = Tensor.from_list([[v * factor for v in row] for row in data.draw(tensors((rows, k))).tolist()])
    weight = data.draw(tensors((n, k), "bfloat16"))
    bias = data.draw(tensors((n,), "bfloat16")) if biased else None
    out = data.draw(tensors((rows, n)))
    before, shift = out.tolist(), bias.tolist() if bias is not None else None
    expected = reference.bfloat16_linear(x.tolist(), weight.tolist(), shift, before if add else None)
    slack = plain.linear(
        magnitudes(x.tolist(), 1e-6),
        magnitudes(weight.tolist()),
        None if shift is None else [abs(b) * 1e-6 for b in shift],
        magnitudes(before, 1e-6) if add else None,
    )
    assert ops.bfloat16_linear(x.to(Device("cpu", threads)), weight, bias, out=out, add=add) is out
    assert_close(out, expected, absolute=slack)


@given(data=st.data(), shape=SHAPES)
def test_it_is_near_the_product_of_what_was_not_rounded(data, shape):
    """Rounding changes a number by at most 1 in 256."""
    rows, k, n = shape
    x, weight = data.draw(tensors((rows, k))), data.draw(tensors((n, k), "bfloat16"))
    slack = plain.linear(magnitudes(x.tolist(), 1.001 / 256), magnitudes(weight.tolist()))
    assert_close(ops.bfloat16_linear(x, weight), plain.linear(x.tolist(), weight.tolist()), absolute=slack)


@given(data=st.data(), shape=SHAPES)
def test_what_is_bfloat16_already_is_multiplied_as_by_linear(data, shape):
    rows, k, n = shape
    x = data.draw(tensors((rows, k), "bfloat16")).astype("float32")
    weight = data.draw(tensors((n, k), "bfloat16"))
    slack = plain.linear(magnitudes(x.tolist(), 2e-6), magnitudes(weight.tolist()))
    assert_close(ops.bfloat16_linear(x, weight), ops.linear(x, weight).tolist(), absolute=slack)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1.0 + 2**-8, 1.0),  # halves go to the even neighbour
        (1.0 + 3 * 2**-8, 1.0 + 2**-6),
        (1.0 + 2**-8 + 2**-20, 1.0 + 2**-7),
        (-1.0 - 2**-8 - 2**-20, -1.0 - 2**-7),
        (2.0**127 * 1.99, 2.0**127 * (2 - 2**-7)),
        (3.4e38, INF),
        (-3.4e38, -INF),
        (INF, INF),
        (NAN, NAN),
    ],
)
def test_rounding(value, rounded):
    """To nearest, halves to even; each place of a step keeps its own."""
    k = 37
    one = Tensor.from_list([[float(i == j) for j in range(k)] for i in range(k)], "bfloat16")
    for place in (0, 1, 15, 16, 31, 32, 36):
        x = [2.0] * k
        x[place] = value
        found = ops.bfloat16_linear(Tensor.from_list([x]), one).tolist()[0]
        if math.isfinite(rounded):
            assert found == [rounded if i == place else 2.0 for i in range(k)]
        else:
            assert found[place] == rounded or (math.isnan(rounded) and math.isnan(found[place]))


def test_numbers_too_small_for_a_full_exponent_count_as_they_are_or_as_zero():
    tiny = 3e-39
    x = Tensor.from_list([[tiny, 1.0, 0.0, tiny, 2.0]])
    weight = Tensor.from_list([[1.0, 2.0, 3.0, 0.0, 0.0], [0.0, tiny, 0.0, 1.0, tiny], [tiny, 0.0, 1.0, tiny, 0.5]])
    found = ops.bfloat16_linear(x, weight.astype("bfloat16")).tolist()[0]
    assert found[0] == 2.0 and found[2] == 1.0 and 0.0 <= found[1] < 5 * tiny


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("rows", "k", "n"), [(1, 32, 7), (4, 5, 6), (5, 33, 48), (67, 3, 49), (130, 2, 13), (3, 65, 100), (64, 1, 96)]
)
def test_edges_of_tiles(rows, k, n, threads):
    x = Tensor.from_list(whole_numbers(rows, k))
    weight = Tensor.from_list([[float((5 * i + 2 * j) % 13 - 6) for j in range(k)] for i in range(n)], "bfloat16")
    assert ops.bfloat16_linear(x.to(Device("cpu", threads)), weight).tolist() == plain.linear(
        x.tolist(), weight.tolist()
    )


@pytest.mark.skipif(not JIT, reason="more arithmetic than the interpreter does in a minute")
def test_more_rows_than_a_block():
    rows, k, n = 2 * ROW_BLOCK + 7, 35, 19
    x = Tensor.from_list(whole_numbers(rows, k))
    weight = Tensor.from_list([[float((5 * i + 2 * j) % 13 - 6) for j in range(k)] for i in range(n)], "bfloat16")
    assert ops.bfloat16_linear(x.to(Device("cpu", 2)), weight).tolist() == plain.linear(x.tolist(), weight.tolist())


@given(data=st.data(), shape=sizes((1, 6), (1, 70), (2, 60)))
def test_outputs_do_not_depend_on_how_many_there_are(data, shape):
    rows, k, n = shape
    x, weight = data.draw(tensors((rows, k))), data.draw(tensors((n, k), "bfloat16"))
    first = data.draw(st.integers(0, n - 1))
    assert bits(ops.bfloat16_linear(x, weight)[:, first:]) == bits(ops.bfloat16_linear(x, weight[first:]))


@given(data=st.data(), shape=SHAPES, bad=st.sampled_from((INF, -INF, NAN)))
def test_infinity_and_nan_stay_in_their_row(data, shape, bad):
    rows, k, n = shape
    x, weight = data.draw(tensors((rows, k))), data.draw(tensors((n, k), "bfloat16"))
    clean = ops.bfloat16_linear(x, weight)
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, k - 1))
    values = x.tolist()
    values[row][column] = bad
    found = ops.bfloat16_linear(Tensor.from_list(values), weight)
    assert not any(map(math.isfinite, found.tolist()[row]))
    for r in range(rows):
        assert r == row or bits(found[r]) == bits(clean[r])


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0)])
def test_nothing_gives_nothing(shape):
    rows, k, n = shape
    weight, bias = Tensor.zeros((n, k), "bfloat16"), Tensor.full((n,), 1.5, "bfloat16")
    assert ops.bfloat16_linear(Tensor.zeros((rows, k)), weight, bias).tolist() == [[1.5] * n] * rows


def test_add_without_out_adds_to_zeros():
    x, weight = Tensor.full((2, 3), 1.0), Tensor.full((5, 3), 2.0, "bfloat16")
    assert ops.bfloat16_linear(x, weight, add=True).tolist() == [[6.0] * 5] * 2


WIDTHS = sizes((1, 9), (1, 80), (1, 110), (1, 61), (1, 53))


@given(data=st.data(), shape=WIDTHS, count=st.integers(0, 3), threads=THREADS)
def test_together_is_one_after_another_to_the_bit(data, shape, count, threads):
    rows, k, *widths = shape
    x = data.draw(tensors((rows, k)))
    weights = [data.draw(tensors((n, k), "bfloat16")) for n in widths[:count]]
    biases = [data.draw(st.one_of(st.none(), tensors((n,), "bfloat16"))) for n in widths[:count]]
    outs = [Tensor.full((rows, n), NAN) for n in widths[:count]]
    ops.bfloat16_linears(x.to(Device("cpu", threads)), weights, outs, biases)
    for weight, bias, out in zip(weights, biases, outs, strict=True):
        assert bits(out) == bits(ops.bfloat16_linear(x.to(Device("cpu", 1)), weight, bias))


def test_more_layers_run_one_after_another():
    x = Tensor.from_list(whole_numbers(3, 41))
    weights = [Tensor.from_list(whole_numbers(n, 41), "bfloat16") for n in (5, 7, 2, 11)]
    scratch = Tensor.full((3 * rounded_bytes(41),), 77, "uint8")
    outs = [Tensor.empty((3, weight.shape[0])) for weight in weights]
    ops.bfloat16_linears(x, weights, outs, scratch=scratch)
    assert [out.tolist() for out in outs] == [plain.linear(x.tolist(), w.tolist()) for w in weights]


@given(data=st.data(), shape=SHAPES)
def test_only_the_result_and_the_scratch_are_written(data, shape):
    rows, k, n = shape
    x, weight = data.draw(tensors((rows, k))), data.draw(tensors((n, k), "bfloat16"))
    wide, around = Tensor.full((rows * n + 64,), 7.0), Tensor.full((rows * rounded_bytes(k) + 64,), 77, "uint8")
    out, scratch = wide[32:-32].reshape(rows, n), around[32:-32]
    before = bits(x), bits(weight)
    ops.bfloat16_linear(x, weight, out=out, scratch=scratch)
    assert bits(out) == bits(ops.bfloat16_linear(x, weight))
    assert wide[:32].tolist() == wide[-32:].tolist() == [7.0] * 32
    assert around[:32].tolist() == around[-32:].tolist() == [77] * 32
    assert (bits(x), bits(weight)) == before


def test_what_does_not_fit_is_refused():
    x, weight = Tensor.zeros((2, 70)), Tensor.zeros((5, 70), "bfloat16")
    refused = [
        (r"weight has shape \(5, 70\), expected \(any, 71\)", {"x": Tensor.zeros((2, 71))}),
        (r"x has shape \(70,\), expected \(any, any\)", {"x": Tensor.zeros((70,))}),
        ("x is bfloat16, expected float32", {"x": x.astype("bfloat16")}),
        ("x is a strided view", {"x": Tensor.zeros((70, 2)).T}),
        ("x is a list", {"x": [[0.0] * 70]}),
        ("weight is float32, expected bfloat16; convert it", {"weight": Tensor.zeros((5, 70))}),
        ("weight is a strided view", {"weight": Tensor.zeros((70, 5), "bfloat16").T}),
        (r"bias has shape \(4,\), expected \(5\)", {"bias": Tensor.zeros((4,), "bfloat16")}),
        ("bias is float32, expected bfloat16", {"bias": Tensor.zeros((5,))}),
        (r"out has shape \(5, 2\), expected \(2, 5\)", {"out": Tensor.zeros((5, 2))}),
        ("out is float16", {"out": Tensor.zeros((2, 5), "float16")}),
        ("out is read-only memory", {"out": Tensor.from_buffer(bytes(40), "float32", (2, 5))}),
        ("scratch has 383 bytes, expected at least 384", {"scratch": Tensor.zeros((383,), "uint8")}),
        ("scratch is float32, expected uint8", {"scratch": Tensor.zeros((384,))}),
        (r"scratch has shape \(2, 192\)", {"scratch": Tensor.zeros((2, 192), "uint8")}),
        ("scratch is read-only memory", {"scratch": Tensor.from_buffer(bytes(384), "uint8", (384,))}),
    ]
    for message, wrong in refused:
        given_all = {"x": x, "weight": weight, **wrong}
        with pytest.raises(TensorError, match=f"^bfloat16_linear: {message}"):
            ops.bfloat16_linear(**given_all)
        together = {"out": Tensor.zeros((2, 5)), "bias": None, "scratch": None, **given_all}
        with pytest.raises(TensorError, match=f"^bfloat16_linears: {message}"):
            ops.bfloat16_linears(
                together["x"],
                [together["weight"], weight],
                [together["out"], Tensor.zeros((2, 5))],
                [together["bias"], None],
                scratch=together["scratch"],
            )


MEMORY = {  # what lies where in one piece of memory, and which of them must be apart
    "x": ("float32", (2, 70)),
    "weight": ("bfloat16", (5, 70)),
    "bias": ("bfloat16", (5,)),
    "out": ("float32", (2, 5)),
    "scratch": ("uint8", (384,)),
}
ITEMSIZE = {"float32": 4, "bfloat16": 2, "uint8": 1}


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
        size = math.prod(shape) * ITEMSIZE[kind]
        return Tensor.from_buffer(memoryview(memory)[4 * (name == written) :][:size], kind, shape)

    made = {name: placed(name) if name in (written, read) else Tensor.zeros(s, k) for name, (k, s) in MEMORY.items()}
    x, weight, bias, out, scratch = made.values()
    with pytest.raises(TensorError, match=f"^bfloat16_linear: {written} shares memory with {read}"):
        ops.bfloat16_linear(x, weight, bias, out=out, scratch=scratch)
    with pytest.raises(TensorError, match=f"^bfloat16_linears: {written} shares memory with {read}"):
        ops.bfloat16_linears(x, [weight], [out], [bias], scratch=scratch)
