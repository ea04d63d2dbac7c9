"""Attention over int8 in which every query sees everything, several cache blocks at a time."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_cache import GARBAGE, Cache, whole_numbers

from pio import ops
from pio.cache.batch import Batch
from pio.device import default_device
from pio.kernels import _quantized_full_attention as walk
from pio.kernels.simd import JIT
from pio.kernels.sizes import BLOCK, SPAN, int8_full_attention_bytes
from pio.ops._record import record
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import quantized_attention as reference
from pio.testing.reference.attention import attention
from pio.testing.strategies import tensors

LONGEST = 2 * SPAN * BLOCK + 40 if JIT else SPAN * BLOCK + 3
THREADS = st.sampled_from((1, 2, 3))


def lengths() -> st.SearchStrategy[int]:
    """Around the ends of blocks and of spans, and anywhere."""
    ends = [n * BLOCK + d for n in (1, SPAN, 2 * SPAN) for d in (-1, 0, 1) if n * BLOCK + d <= LONGEST]
    return st.sampled_from(ends) | st.integers(1, LONGEST)


@st.composite
def problems(draw, widest=72):
    kv_heads, group, dim = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 17))), draw(st.integers(1, widest))
    length = draw(lengths())
    tokens = draw(st.integers(1, min(length, 20 if JIT else 3)))
    q = draw(whole_numbers(tokens, kv_heads * group, dim))
    k, v = (draw(tensors((length, kv_heads, dim))) for _ in range(2))
    return q, k, v, kv_heads, dim, length


@settings(max_examples=40 if JIT else 2)
@given(problem=problems(), garbage=st.sampled_from(GARBAGE), threads=THREADS, scale=st.sampled_from((None, 0.03, 0.0)))
def test_full_attention(problem, garbage, threads, scale):
    q, k, v, kv_heads, dim, length = problem
    cache = Cache([length], kv_heads, dim, garbage)
    found = cache.last(q, k, v, threads, causal=False, scale=scale)
    expected = reference.quantized_attention(
        q.tolist(), *cache.holds(length), causal=False, scale=scale, precision=6e-6
    )
    numbers = [[one.numbers for one in row] for row in expected]
    assert_close(found, numbers, absolute=[[[s + 1e-30 for s in one.slack] for one in row] for row in expected])


@pytest.mark.skipif(not JIT, reason="many numbers")
@pytest.mark.parametrize("dim", [64, 72])
def test_what_eight_bits_cost_as_a_rule(dim):
    q, k, v = (Tensor.from_list(gauss(400 * 2 * dim, seed)).reshape(400, 2, dim) for seed in (1, 2, 3))
    found = Cache([400], 2, dim).last(q, k, v, 2, causal=False).tolist()
    expected = attention(q.tolist(), k.tolist(), v.tolist(), causal=False)
    pairs = [
        (a, b)
        for f, e in zip(found, expected, strict=True)
        for g, h in zip(f, e, strict=True)
        for a, b in zip(g, h, strict=True)
    ]
    error = math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs) / math.fsum(b * b for _, b in pairs))
    assert error < 0.02


@settings(max_examples=20 if JIT else 1)
@given(problem=problems(widest=40), threads=THREADS)
def test_a_query_depends_on_its_sequence_alone(problem, threads):
    """Whatever is behind it in memory, whoever is asked beside it, and over however many threads."""
    q, k, v, kv_heads, dim, length = problem
    whole = Cache([length], kv_heads, dim).last(q, k, v, causal=False)
    for garbage in GARBAGE:
        alone = Cache([length], kv_heads, dim, garbage).last(q[-1:], k, v, threads, causal=False)
        assert bits(alone) == bits(whole[-1:])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_seen_by_all(bad):
    q, k, v = (Tensor.from_list(gauss(150 * 32, seed)).reshape(150, 1, 32) for seed in (1, 2, 3))
    spoiled = v.clone()
    spoiled[140, 0, 3:4].fill_(bad)
    found = Cache([150], 1, 32).last(q, k, spoiled, causal=False)
    assert all(math.isnan(x) for token in found.tolist() for head in token for x in head)


@pytest.mark.parametrize(("count", "dim"), [(16, 1), (20, 33), (5, 128), (7, 160)])
def test_scratch_is_enough(count, dim):
    """Nothing is written beyond what ``int8_full_attention_bytes`` says, wherever scratch begins."""
    length, width = SPAN * BLOCK + 3, ops.attention.value_width(dim)
    cache, q = Cache([length], 1, dim), Tensor.full((3, count, dim), 0.25)
    k, v = (Tensor.from_list(gauss(length * dim, seed)).reshape(length, 1, dim) for seed in (1, 2))
    expected = cache.last(q, k, v, causal=False)
    batch = Batch(length, 1, len(cache.tables[0]), 1)
    batch.add([0] * 3, length - 3, cache.tables[0], 0)
    size = int8_full_attention_bytes(dim, width)
    for offset in (4, 20, 60):
        wide = Tensor.full((size + 256,), 99, "uint8")
        base = wide.address + offset
        out = Tensor.full(q.shape, math.nan)
        pools = (cache.keys.address, cache.values.address)
        shape = record(size, 1, count, dim, 0, 0, 1.0 / math.sqrt(dim), device=default_device())
        walk.full_attention(out.address, q.address, *pools, batch.record.address, base, shape.address, 1)
        assert bits(out) == bits(expected)
        assert set(wide[:offset].tolist() + wide[offset + size :].tolist()) == {99}


def gauss(count, seed):
    source = random.Random(seed)
    return [source.gauss(0, 1) for _ in range(count)]
