"""Few rows, which the kernel that multiplies them quantizes: the bits of rows that another one quantized before."""

import math

import pytest
from gpu_case import bytes_of, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_experts import chosen, matrices
from test_cuda_linear import multiply_rows
from test_cuda_norm import numbers
from test_cuda_quantized import multiply, records

from pio import ops
from pio.kernels import _image, jobs, sizes
from pio.kernels._formats import FORMATS
from pio.kernels.cuda import _linears, experts, head_linear
from pio.ops import compilation
from pio.ops.quantized import record_bytes
from pio.tensor import Tensor

PRECISE = 1e-6  # integer sums are exact, float32 sums are in another order than the CPU's


def multiply_own(form, x, weights, biases=None, outs=None, multiprocessors=2):
    shapes = [(w.data, w.shape[0]) for w in weights]
    kernel = _linears.quantizing_linears[form]
    return multiply_rows(form, x, x.shape, shapes, biases, outs, multiprocessors, kernel)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=5)
@given(
    rows=st.integers(1, sizes.GPU_OWN_ROWS),
    k=st.one_of(st.integers(1, 300), st.integers(1, 24).map(lambda i: 64 * i)),
    n=st.integers(1, 70),
    factor=st.sampled_from((1.0, 1e-25, 1e25, 0.0, 1e-38)),
    bad=st.sampled_from((None, math.inf, -math.inf, math.nan, 1e37)),
    processors=st.integers(1, 2),
)
def test_a_linear_layer(form, rows, k, n, factor, bad, processors):
    x = Tensor.from_list([[v * factor for v in row] for row in numbers(rows, k).tolist()])
    w, bias = ops.pack(numbers(n, k, seed=3), form), numbers(n, seed=5)
    if bad is not None:
        x[rows - 1, k // 2 : k // 2 + 1].fill_(bad)
    (found,) = multiply_own(form, x, [w], [bias], multiprocessors=processors)
    (wanted,) = multiply(form, x, [w], [bias])
    assert bytes_of(found) == bytes_of(wanted)
    assert all(map(math.isnan, found[rows - 1].tolist())) == (bad is not None)
    if bad is None:
        assert relative_error(found, ops.quantized_linear(x, w, bias).reshape(-1).tolist()) < PRECISE


@pytest.mark.parametrize("form", FORMATS)
def test_several_matrices_that_add_to_what_is_there(form):
    x, weights = numbers(3, 200), [ops.pack(numbers(size, 200, seed=size), form) for size in (37, 5)]
    outs, others = ([numbers(3, size, seed=size) for size in (37, 5)] for _ in range(2))
    multiply_own(form, x, weights, None, outs, multiprocessors=1)
    multiply(form, x, weights, None, others)
    for found, wanted in zip(outs, others, strict=True):
        assert bytes_of(found) == bytes_of(wanted)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_the_widest_rows_that_have_room(rows):
    k = sizes.PAIR * ((sizes.GPU_OWN_BYTES // rows - sizes.START) // sizes.RECORD)
    assert sizes.gpu_own(rows, k) and not sizes.gpu_own(rows, k + 1)
    x, w = numbers(rows, k), ops.pack(numbers(5, k, seed=3), "int4")
    (found,) = multiply_own("int4", x, [w])
    assert bytes_of(found) == bytes_of(multiply("int4", x, [w])[0])


def test_room_is_for_as_many_rows_as_are_quantized():
    assert sizes.gpu_own(sizes.GPU_OWN_ROWS, 1) and not sizes.gpu_own(sizes.GPU_OWN_ROWS + 1, 1)
    for rows in range(1, sizes.GPU_OWN_ROWS + 1):
        for k in (1, 64, 4096, 5000, 16384):
            assert sizes.gpu_own(rows, k) == (rows * record_bytes(k) <= sizes.GPU_OWN_BYTES)


def expert_outs(kernel, x, choices, weights, *rest, order=()):
    rows, n = choices.order.size, weights[0].shape[0]
    outs = [Tensor.full((rows, n), math.nan) for _ in weights]
    fields = ([v for out, w in zip(outs, weights, strict=True) for v in (out, w.addresses)] + [0, 0])[:4]
    held = [m.data for w in weights for m in w.matrices]
    reading = [x, choices.starts, choices.order, *held, *(w.addresses for w in weights)]
    run(kernel, x, choices.starts, *order, *fields, len(weights[0]), n, weights[0].shape[1], *rest, reading=reading)
    return outs


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("grouped", [False, True])
@settings(max_examples=5)
@given(
    tokens=st.integers(1, 4), k=st.integers(1, 5), count=st.integers(5, 40), n=st.integers(1, 40), w=st.integers(1, 150)
)
def test_experts(form, grouped, tokens, k, count, n, w):
    choices, weights = chosen(tokens, k, count), [matrices(form, count, n, w) for _ in range(1 if grouped else 2)]
    rows = tokens * k
    x = numbers(rows if grouped else tokens, w)
    order = (0 if grouped else choices.order,)
    found = expert_outs(experts.quantizing_experts[form], x, choices, weights, k, order=order)
    sorted_rows = x if grouped else Tensor.from_list([x[i // k].tolist() for i in choices.order.tolist()])
    met = records(form, sorted_rows.reshape(rows, w))
    wanted = expert_outs(experts.experts_linear[form], met, choices, weights, record_bytes(w), tokens)
    cpu = [Tensor.zeros((rows, n)) for _ in weights]
    ops.expert_linears(x, choices, weights, cpu, grouped=grouped)
    for one, other, here in zip(found, wanted, cpu, strict=True):
        assert bytes_of(one) == bytes_of(other)
        assert relative_error(one, here.reshape(-1).tolist()) < PRECISE


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=5)
@given(
    rows=st.integers(1, 4), heads=st.integers(1, 3), n=st.integers(1, 40), k=st.integers(1, 150), gap=st.integers(0, 3)
)
def test_heads(form, rows, heads, n, k, gap):
    x, w = numbers(rows, heads, k + gap)[:, :, :k], ops.pack_heads(numbers(heads, n, k, seed=3), form)
    strides = x.strides[0], x.strides[1]
    y, wanted = (Tensor.full((rows, heads, n), math.nan) for _ in range(2))
    run(head_linear.quantizing_heads[form], y, x, w.data, rows, heads, n, k, *strides, reading=(x, w.data))
    met = Tensor.full((heads * rows, record_bytes(k)), 77, "uint8")
    run(head_linear.quantize_heads[form], met, x, rows, heads, k, *strides, reading=(x,))
    sizes_ = rows, heads, n, w.data.shape[1]
    run(head_linear.quantized_head_linear[form], wanted, met, w.data, *sizes_, reading=(met, w.data))
    assert bytes_of(y) == bytes_of(wanted)
    expected = ops.head_linear(x, w, out=Tensor.zeros((rows, heads, n)))
    assert relative_error(y, expected.reshape(-1).tolist()) < PRECISE


@pytest.fixture
def launched(driver, monkeypatch):
    """The names of kernels that were launched, those that multiply or quantize."""
    names, record = [], jobs.record_launch
    monkeypatch.setattr(jobs, "record_launch", lambda name, *rest: (names.append(name), record(name, *rest)))
    return names


def of(names):
    return [name for name in names if any(part in name for part in ("quantiz", "_linears", "_experts", "gather_c"))]


def test_a_layer_launches_one_kernel_for_few_rows(launched):
    w = ops.pack(numbers(20, 70, seed=2).to("cuda"), "int4")
    x = numbers(sizes.GPU_OWN_ROWS + 1, 70).to("cuda")
    launched.clear()
    more = ops.quantized_linear(x, w)
    assert of(launched) == ["quantize_int4", "few_linears_int4"]
    launched.clear()
    outs = [Tensor.empty((sizes.GPU_OWN_ROWS, 20), device="cuda") for _ in range(2)]
    ops.quantized_linears(x[1:].clone(), [w, w], outs)
    assert of(launched) == ["quantizing_linears_int4"]
    for out in outs:
        assert bytes_of(out.to("cpu")) == bytes_of(more.to("cpu")[1:].clone())


def test_heads_launch_one_kernel_for_few_rows(launched):
    w = ops.pack_heads(numbers(2, 20, 70, seed=2).to("cuda"), "int8")
    x = numbers(sizes.GPU_OWN_ROWS + 1, 2, 70).to("cuda")
    launched.clear()
    more, few = ops.head_linear(x, w), ops.head_linear(x[1:].clone(), w)
    assert of(launched) == ["quantize_heads_int8", "few_quantized_heads_int8", "quantizing_heads_int8"]
    assert bytes_of(few.to("cpu")) == bytes_of(more.to("cpu")[1:].clone())


def test_experts_of_few_tokens_are_gathered_by_nobody(launched):
    tokens, k, count, n, width = sizes.GPU_OWN_ROWS + 1, 2, 5, 20, 70
    packed = [ops.pack(numbers(n, width, seed=e).to("cuda"), "int4") for e in range(count)]
    weights, x = ops.ExpertWeights(packed), numbers(tokens, width).to("cuda")
    found = []
    for first in (0, 1):
        logits = Tensor.from_list([[float(t * 7 * (e + 1) % 11) for e in range(count)] for t in range(first, tokens)])
        some = ops.route(logits.to("cuda"), out=ops.Choices.empty(tokens - first, k, count, x.device))
        out = Tensor.empty((some.order.size, n), device="cuda")
        launched.clear()
        ops.expert_linears(x[first:].clone(), some, [weights], [out])
        found.append((of(launched), [[out.tolist()[p] for p in row] for row in some.places.tolist()]))
    assert found[0][0] == ["quantize_int4", "gather_choices", "few_experts_int4"]
    assert found[1][0] == ["quantizing_experts_int4"]
    assert found[0][1][1:] == found[1][1]


@pytest.mark.parametrize("rows", [1, 50])
def test_both_ways_are_listed_whatever_the_rows(driver, tmp_path, monkeypatch, rows):
    w = ops.pack(numbers(5, 40, seed=2).to("cuda"), "int4")
    monkeypatch.setattr(_image, "cache_folder", lambda: tmp_path)
    with compilation.listing() as listed:
        ops.quantized_linear(numbers(rows, 40).to("cuda"), w)
    names = [kernel.source.name.name for kernel in listed]
    assert sorted(names) == ["few_linears", "many_linears", "quantize", "quantizing_linears"]


def test_a_recorded_step_of_few_rows_is_one_launch(launched):
    x, w = numbers(2, 40).to("cuda"), ops.pack(numbers(5, 40, seed=2).to("cuda"), "int4")
    out, scratch = Tensor.zeros((2, 5), device="cuda"), Tensor.empty((2 * record_bytes(40),), "uint8", "cuda")
    launched.clear()
    with ops.recording() as program:
        ops.quantized_linear(x, w, out=out, scratch=scratch)
    wanted = out.tolist()
    out.fill_(0.0)
    program.run()
    assert out.tolist() == wanted and of(launched) == ["quantizing_linears_int4"]
