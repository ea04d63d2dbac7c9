import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.cache.batch import Batch
from pio.device import Device
from pio.dtypes import dtype
from pio.errors import TensorError
from pio.ops import compilation
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.attention import attention
from pio.testing.strategies import FLOATS, sizes, tensors

THREADS = st.sampled_from((1, 2, 3))
BLOCK = ops.attention.BLOCK_SIZE
# without the compiler a score takes a millisecond: two blocks and a bit must do
LONGEST, WIDEST, LARGEST = (90, 21, 20) if compilation.enabled() else (38, 3, 5)


@st.composite
def heads(draw):
    """Key/value heads, query heads and an even width of a head, pairwise different."""
    kv_heads, group, half = draw(sizes((1, 3), (1, LARGEST), (1, WIDEST)))
    return kv_heads, kv_heads * group, 2 * half


@given(data=st.data(), shape=heads(), tokens=st.integers(1, 20), past=st.integers(0, 75), threads=THREADS)
def test_scaled_dot_product_attention(data, shape, tokens, past, threads):
    kv_heads, count, dim = shape
    length = tokens + past
    q = data.draw(tensors((tokens, count, dim)))
    k, v = data.draw(tensors((length, kv_heads, dim))), data.draw(tensors((length, kv_heads, dim)))
    causal = data.draw(st.booleans())
    window = data.draw(st.one_of(st.none(), st.integers(1, length + 3))) if causal else None
    scale = data.draw(st.sampled_from((None, 0.3, 0.0)))
    found = ops.scaled_dot_product_attention(
        q.to(Device("cpu", threads)), k, v, causal=causal, window=window, scale=scale
    )
    expected = attention(q.tolist(), k.tolist(), v.tolist(), causal=causal, window=window, scale=scale)
    largest = max(abs(x) for row in v.tolist() for head in row for x in head)
    factor = 1 / math.sqrt(dim) if scale is None else scale
    spread = max(abs(x) for row in q.tolist() for head in row for x in head) * factor * dim
    sharpest = max(abs(x) for row in k.tolist() for head in row for x in head)
    # an error in a score moves a probability by as much again
    assert_close(found, expected, absolute=largest * (2e-6 + 3e-7 * spread * sharpest))


class Paged:
    """Sequences in a shuffled pool of blocks, written and read through a batch."""

    def __init__(self, lengths, kv_heads, dim, kind):
        self.blocks = [-(-n // BLOCK) for n in lengths]
        total = sum(self.blocks)
        order = sorted(range(total), key=lambda b: (b * 7 + 3) % max(1, total))
        self.tables = [order[a - n : a] for n, a in zip(self.blocks, accumulate(self.blocks), strict=True)]
        self.keys = Tensor.full((total, kv_heads, dim, BLOCK), math.nan, dtype(kind))
        self.values = Tensor.full((total, kv_heads, BLOCK, ops.attention.value_width(dim)), math.nan, dtype(kind))
        self.dim = dim

    def attend(self, slices, q, k, v, threads, window=None):
        """slices: for each sequence (index, past, new); q, k, v hold the new tokens of all of them."""
        batch = Batch(q.shape[0], len(slices), max(self.blocks), 1)
        for index, past, new in slices:
            batch.add([0] * new, past, self.tables[index], 0)
        scratch = ops.attention_scratch(self.dim, Device("cpu", threads))
        ops.write_cache(self.keys, self.values, k, v, batch, scratch)
        out = Tensor.full(q.shape, math.nan)
        return ops.paged_attention(q, self.keys, self.values, batch, scratch, out=out, window=window)


def pick(x, first, last):
    return x[first:last].contiguous()


@pytest.mark.parametrize("kind", FLOATS)
@given(data=st.data(), shape=heads(), threads=THREADS)
def test_bits_do_not_depend_on_batch_chunks_or_threads(data, shape, threads, kind):
    kv_heads, count, dim = shape
    lengths = data.draw(st.lists(st.integers(1, LONGEST), min_size=2, max_size=3, unique=True))
    window = data.draw(st.one_of(st.none(), st.integers(1, 50)))
    drawn = [[data.draw(tensors((n, h, dim))) for h in (count, kv_heads, kv_heads)] for n in lengths]
    whole = []
    for (q, k, v), n in zip(drawn, lengths, strict=True):
        whole.append(Paged([n], kv_heads, dim, kind).attend([(0, 0, n)], q, k, v, 1, window))
    together = Paged(lengths, kv_heads, dim, kind)
    cuts = [data.draw(st.integers(0, n - 1)) for n in lengths]
    for first, last in ((0, 1), (1, 2)):
        bounds = [((0, c, n)[first], (0, c, n)[last]) for c, n in zip(cuts, lengths, strict=True)]
        used = [i for i, (a, b) in enumerate(bounds) if b > a]
        if not used:
            continue
        joined = []
        for which in range(3):
            rows = [x for i in used for x in pick(drawn[i][which], *bounds[i]).tolist()]
            joined.append(Tensor.from_list(rows))
        slices = [(i, bounds[i][0], bounds[i][1] - bounds[i][0]) for i in used]
        found = together.attend(slices, *joined, threads, window)
        at = 0
        for i in used:
            a, b = bounds[i]
            assert bits(pick(found, at, at + b - a)) == bits(pick(whole[i], a, b))
            at += b - a
    if kind == "float32" and window is None:
        for out, (q, k, v) in zip(whole, drawn, strict=True):
            assert bits(out) == bits(ops.scaled_dot_product_attention(q.to(Device("cpu", threads)), k, v))


@pytest.mark.parametrize("kind", FLOATS)
def test_a_cache_rounds_keys_and_values_to_its_type(kind):
    length, kv_heads, count, dim = 37, 2, 6, 10
    q = Tensor.from_list([[[math.sin(t + 3 * h + i) for i in range(dim)] for h in range(count)] for t in range(length)])
    k, v = (
        Tensor.from_list(
            [[[math.cos(s * t + h - i) for i in range(dim)] for h in range(kv_heads)] for t in range(length)]
        )
        for s in (1.1, 0.7)
    )
    found = Paged([length], kv_heads, dim, kind).attend([(0, 0, length)], q, k, v, 2)
    rounded = [x.astype(kind).tolist() for x in (k, v)]
    assert_close(found, attention(q.tolist(), *rounded), absolute=3e-6)


def test_stale_blocks_are_never_read():
    """The pool is full of NaN; only what the sequence wrote may reach its output."""
    k = v = Tensor.full((33, 1, 4), 0.5)
    found = Paged([33], 1, 4, "float16").attend([(0, 0, 33)], Tensor.full((33, 2, 4), 1.0), k, v, 2)
    assert all(x == 0.5 for row in found.tolist() for head in row for x in head)


def test_errors_name_the_argument():
    q, k = Tensor.zeros((3, 4, 6)), Tensor.zeros((5, 3, 6))
    with pytest.raises(TensorError, match="4 query heads do not divide among 3"):
        ops.scaled_dot_product_attention(q, k, k)
    with pytest.raises(TensorError, match=r"q has shape \(3, 8\)"):
        ops.scaled_dot_product_attention(Tensor.zeros((3, 8)), Tensor.zeros((3, 8)), Tensor.zeros((3, 8)))
    for heads, kv_heads, dim in ((0, 1, 8), (2, 0, 8), (2, 1, 0)):
        keys = Tensor.zeros((3, kv_heads, dim))
        with pytest.raises(TensorError, match="no heads, or heads of width 0"):
            ops.scaled_dot_product_attention(Tensor.zeros((3, heads, dim)), keys, keys)
    with pytest.raises(TensorError, match="3 queries but only 2 keys"):
        ops.scaled_dot_product_attention(q, k[:2].contiguous(), k[:2].contiguous())
    with pytest.raises(TensorError, match="k has shape"):
        ops.scaled_dot_product_attention(q, Tensor.zeros((5, 2, 8)), k)
    with pytest.raises(TensorError, match="window"):
        ops.scaled_dot_product_attention(q, Tensor.zeros((5, 2, 6)), Tensor.zeros((5, 2, 6)), window=0)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_scratch_is_memory_of_its_own(kind):
    batch = Batch(5, 1, 1, 1)
    batch.add([0] * 5, 0, [0], 0)
    stored, *shapes = ops.attention.cache_layout(kind, 1, 3, 20)
    scratch = ops.attention_scratch(20, Device("cpu", 1))
    caches = [ops.Pages.of(Tensor.zeros(shape, stored), kind) for shape in shapes]
    q, k, v, out = (Tensor.zeros((5, n, 20)) for n in (6, 3, 3, 6))
    cache = dict(zip(("keys", "values"), caches, strict=True))
    for op, call, fits in (
        ("attention", ops.paged_attention, {**cache, "q": q, "out": out}),
        ("write_cache", ops.write_cache, {**cache, "k": k, "v": v}),
    ):
        call(**fits, scratch=scratch, batch=batch)
        for name, x in fits.items():
            memory = bytearray(max(x.nbytes, scratch.nbytes))
            shared = Tensor.from_buffer(memoryview(memory)[: x.nbytes], x.dtype, x.shape)
            if name in cache:
                shared = ops.Pages.of(shared, kind)
            inside = Tensor.from_buffer(memoryview(memory)[: scratch.nbytes], "float32", scratch.shape)
            with pytest.raises(TensorError, match=f"^{op}: scratch shares memory with {name}"):
                call(**(fits | {name: shared}), scratch=inside, batch=batch)
        frozen = Tensor.from_buffer(bytes(scratch.nbytes), "float32", scratch.shape)
        with pytest.raises(TensorError, match=f"^{op}: scratch is read-only"):
            call(**fits, scratch=frozen, batch=batch)
