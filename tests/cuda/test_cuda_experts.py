"""Mixtures of experts on a GPU beside the CPU's."""

import ctypes
import math
from itertools import pairwise

import pytest
from gpu_case import bytes_of, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_linear import KINDS, dtype_of, multiply, rounded
from test_cuda_norm import numbers
from test_cuda_quantized import records

from pio import ops
from pio.kernels._formats import FORMATS
from pio.kernels.cuda import experts as kernels
from pio.kernels.cuda import routing
from pio.kernels.sizes import ROUNDED
from pio.ops.expert_weights import ExpertWeights
from pio.ops.routing import Choices
from pio.tensor import Tensor


def chosen(tokens, k, experts, step=5):
    """Choices of the CPU, of logits that favour few experts."""
    values = [[((t * 7919 + e * 104729) % 997) / 100 - (e % step) for e in range(experts)] for t in range(tokens)]
    return ops.route(Tensor.from_list(values).reshape(tokens, experts), out=Choices.empty(tokens, k, experts))


def met(kind, x):
    return records(kind, x) if kind in FORMATS else rounded(x) if kind == ROUNDED else x


def matrices(kind, experts, n, k):
    plain = [numbers(n, k, seed=7 * e + 1) for e in range(experts)]
    if kind in FORMATS:
        return ExpertWeights([ops.pack(w, kind) for w in plain])
    return ExpertWeights([w.astype(dtype_of(kind)) for w in plain])


@pytest.mark.parametrize("kind", [*KINDS, *FORMATS])
@pytest.mark.parametrize(("tokens", "k", "experts", "n", "width"), [(1, 3, 40, 20, 70), (45, 2, 3, 37, 96)])
@pytest.mark.parametrize("two", [False, True])
def test_experts_linear(kind, tokens, k, experts, n, width, two):
    choices, weights = chosen(tokens, k, experts), [matrices(kind, experts, n, width)]
    if two:
        weights.append(matrices(kind, experts, n, width))
    rows = tokens * k
    x = numbers(rows, width)
    lines, outs = met(kind, x), [Tensor.full((rows, n), math.nan) for _ in weights]
    line = lines.nbytes // rows
    fields = [v for out, w in zip(outs, weights, strict=True) for v in (out, w.addresses)] + [0, 0]
    held = [m.data if kind in FORMATS else m for w in weights for m in w.matrices]
    kernel = kernels.experts_linear[kind]
    reading = (lines, choices.starts, *held, *(w.addresses for w in weights))
    run(kernel, lines, choices.starts, *fields[:4], experts, n, width, line, tokens, reading=reading)
    wanted = [Tensor.zeros((rows, n)) for _ in weights]
    ops.expert_linears(x, choices, weights, wanted, grouped=True, rounds=kind == ROUNDED)
    for found, expected in zip(outs, wanted, strict=True):
        assert relative_error(found, expected.reshape(-1).tolist()) < 1e-5


def test_a_row_has_the_bits_of_a_linear_layer_whatever_the_gpu():
    tokens, k, experts, n, width = 50, 2, 5, 20, 64
    choices, weights = chosen(tokens, k, experts, 2), matrices("bfloat16", experts, n, width)
    x, starts = numbers(tokens * k, width), choices.starts.tolist()
    outs = [Tensor.full((tokens * k, n), math.nan) for _ in range(2)]
    for out, processors in zip(outs, (1, 3), strict=True):
        at = x, choices.starts, out, weights.addresses, 0, 0, experts, n, width, 4 * width, tokens
        run(kernels.experts_linear["bfloat16"], *at, touching=weights.matrices, multiprocessors=processors)
    assert bytes_of(outs[0]) == bytes_of(outs[1])
    for e, (first, last) in enumerate(pairwise(starts)):
        if last > first:
            (alone,) = multiply("bfloat16", x[last - 1 : last].clone(), [weights.matrices[e]])
            assert bytes_of(alone) == bytes_of(outs[0][last - 1 : last].clone())


@settings(max_examples=8)
@given(tokens=st.integers(1, 5), k=st.integers(1, 4), words=st.integers(1, 20))
def test_gather_choices(tokens, k, words):
    choices, x = chosen(tokens, k, 6), Tensor.from_list(list(range(tokens * words)), "int32").reshape(tokens, words)
    out = Tensor.full((tokens * k, words), 7, "int32")
    run(kernels.gather_choices, out, x, choices.order, tokens * k, k, 4 * words, reading=(x, choices.order))
    assert out.tolist() == [x[i // k].tolist() for i in choices.order.tolist()]


@settings(max_examples=8)
@given(tokens=st.integers(1, 4), k=st.integers(1, 4), n=st.integers(1, 300))
def test_add_choices_is_the_cpu_s_to_the_bit(tokens, k, n):
    choices, y = chosen(tokens, k, 6), numbers(tokens * k, n)
    out, wanted = numbers(tokens, n, seed=2), numbers(tokens, n, seed=2)
    inputs = y, choices.places, choices.weights
    run(kernels.add_choices, out, *inputs, tokens, k, n, reading=inputs)
    assert bytes_of(out) == bytes_of(ops.add_choices(wanted, *inputs))


def record_of(*values, scaling):
    """The record of a layer's routing: integers, then a float64."""
    integers = Tensor.from_list([*values, 0], "int64")
    ctypes.c_double.from_address(integers.address + 8 * len(values)).value = scaling
    return integers


@pytest.mark.parametrize("logistic", [False, True])
@settings(max_examples=12)
@given(
    tokens=st.integers(1, 5),
    groups=st.sampled_from((1, 1, 3, 4)),
    each=st.integers(1, 40),
    biased=st.booleans(),
    renormalise=st.booleans(),
    ties=st.booleans(),
    k=st.integers(1, 8),
)
def test_route_is_the_cpu_s_to_the_bit(logistic, tokens, groups, each, biased, renormalise, ties, k):
    experts, kept = groups * each, max(1, groups - 1)
    k = min(k, each * kept)
    raw = numbers(tokens, experts).tolist()
    values = [[float(round(v)) for v in row] for row in raw] if ties else [[3 * v for v in row] for row in raw]
    logits, bias = Tensor.from_list(values).reshape(tokens, experts), numbers(experts, seed=6) if biased else None
    copy, out, wanted = logits.clone(), Choices.empty(tokens, k, experts), Choices.empty(tokens, k, experts)
    ops.route(
        copy,
        out=wanted,
        bias=bias,
        groups=groups,
        kept_groups=kept,
        logistic=logistic,
        renormalise=renormalise,
        scaling=2.5,
    )
    shape = record_of(experts, k, groups, kept, int(logistic), int(renormalise), scaling=2.5)
    at = out.ids, out.weights, logits, 0 if bias is None else bias, 0, tokens, shape
    run(routing.route, *at, reading=(shape,) if bias is None else (shape, bias))
    assert bytes_of(logits) == bytes_of(copy)
    assert out.ids.tolist() == wanted.ids.tolist()
    assert bytes_of(out.weights) == bytes_of(wanted.weights)


def test_many_experts_and_what_is_no_number():
    experts, k = 1500, 9
    values = [((i * 7919) % 2003) / 300 for i in range(experts)]
    logits = Tensor.from_list([values, values])
    logits[1, 700:701].fill_(math.nan)
    copy, out, wanted = logits.clone(), Choices.empty(2, k, experts), Choices.empty(2, k, experts)
    ops.route(copy, out=wanted)
    shape = record_of(experts, k, 1, 1, 0, 1, scaling=1.0)
    run(routing.route, out.ids, out.weights, logits, 0, 0, 2, shape)
    assert out.ids.tolist() == wanted.ids.tolist()
    assert bytes_of(out.weights[:1].clone()) == bytes_of(wanted.weights[:1].clone())
    assert all(map(math.isnan, out.weights[1].tolist()))


@settings(max_examples=8)
@given(n=st.integers(1, 600), experts=st.integers(1, 9), step=st.integers(1, 7))
def test_choices_are_sorted_by_expert(n, experts, step):
    ids = Tensor.from_list([(i * i * step + i // 3) % experts for i in range(n)], "int32")
    order, places, starts = (Tensor.full((size,), -1, "int32") for size in (n, n, experts + 1))
    run(routing.group_by_expert, order, starts, places, ids, n, experts, reading=(ids,))
    wanted = sorted(range(n), key=lambda i: ids.tolist()[i])
    assert order.tolist() == wanted
    assert [wanted[j] for j in places.tolist()] == list(range(n))
    assert starts.tolist() == [sum(e < x for e in ids.tolist()) for x in range(experts + 1)]
