import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_cache import BLOCK, GARBAGE, Cache, pick, whole_numbers

from pio import ops
from pio.cache.batch import Batch
from pio.device import Device, default_device
from pio.errors import TensorError
from pio.kernels import attention as walk
from pio.kernels.simd import JIT
from pio.kernels.sizes import int8_attention_bytes
from pio.ops import compilation
from pio.ops._record import record
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import quantized_attention as reference
from pio.testing.reference.attention import attention
from pio.testing.strategies import sizes, tensors

THREADS = st.sampled_from((1, 2, 3))
INF, NAN = math.inf, math.nan
# without the compiler a score takes a millisecond: two blocks and a bit must do
LONGEST, WIDEST, TOKENS = (90, 160, 6) if compilation.enabled() else (38, 70, 2)


@st.composite
def heads(draw, groups=(1, 2, 3, 4, 5), widest=WIDEST):
    """Key/value heads, query heads and the width of a head."""
    kv_heads, dim = draw(sizes((1, 3), (1, widest)))
    return kv_heads, kv_heads * draw(st.sampled_from(groups)), dim


# --- attention ---


@settings(max_examples=60 if JIT else 4)
@given(data=st.data(), tokens=st.integers(1, TOKENS), past=st.integers(0, 75 if JIT else 34), threads=THREADS)
def test_quantized_attention(data, tokens, past, threads):
    kv_heads, count, dim = data.draw(heads((1, 2, 3, 4, 5, 17) if JIT else (1, 3)))
    length = tokens + past
    q = data.draw(whole_numbers(tokens, count, dim))
    k, v = (data.draw(tensors((length, kv_heads, dim))) for _ in range(2))
    causal = data.draw(st.booleans())
    window = data.draw(st.one_of(st.none(), st.integers(1, length + 3)))
    scale = data.draw(st.sampled_from((None, 0.03, 0.0)))
    options = {"causal": causal, "window": window, "scale": scale}
    cache = Cache([length], kv_heads, dim, data.draw(st.sampled_from(GARBAGE)))
    found = cache.last(q, k, v, threads, **options)
    # sums of at most six groups, each scaled three times
    expected = reference.quantized_attention(q.tolist(), *cache.holds(length), **options, precision=1e-6)
    numbers = [[one.numbers for one in row] for row in expected]
    assert_close(found, numbers, absolute=[[[s + 1e-30 for s in one.slack] for one in row] for row in expected])


@settings(max_examples=60 if JIT else 4)
@given(data=st.data(), shape=heads(widest=60), tokens=st.integers(1, TOKENS), past=st.integers(0, 60 if JIT else 5))
def test_what_eight_bits_cost_is_bounded(data, shape, tokens, past):
    """Against attention over keys and values as they were given, in float64."""
    kv_heads, count, dim = shape
    length = tokens + past
    factor = data.draw(st.sampled_from((1e-3, 0.03, 1.0))) / dim  # small scores leave something to bound
    q, k, v = (data.draw(tensors((n, h, dim))) for n, h in ((tokens, count), (length, kv_heads), (length, kv_heads)))
    window = data.draw(st.one_of(st.none(), st.integers(1, length)))
    found = Cache([length], kv_heads, dim).last(q, k, v, scale=factor, window=window)
    expected = attention(q.tolist(), k.tolist(), v.tolist(), window=window, scale=factor)
    most_q, most_k, most_v = (max(abs(x) for row in t.tolist() for head in row for x in head) for t in (q, k, v))
    # half a step of 127, and half a unit in the last of float16's eleven bits
    off_q, off_k = most_q / 254, most_k * (1 / 254 + 2**-11) + 127 * 2**-25
    score = factor * dim * (most_q * off_k + (most_k + off_k) * off_q) * 1.001
    # a probability is off by what its score and the largest are; then half a step of 127 of what the largest of 32
    # positions weighs, for each of them; then half a step of a value
    limit = most_v * (min(2.0, math.expm1(2 * score)) + (BLOCK / 254 + 1 / 254) * math.exp(min(1.0, 2 * score)) + 1e-5)
    assert_close(found, expected, absolute=limit)


@pytest.mark.skipif(not JIT, reason="many numbers")
@pytest.mark.parametrize(("sharp", "share"), [(0.2, 0.009), (1.0, 0.018), (3.0, 0.023)])
def test_what_eight_bits_cost_as_a_rule(sharp, share):
    """Errors are independent, so that they are far below their bound: a share of what the outputs measure."""
    source = random.Random(5)
    length, dim = 300, 128
    q, k, v = (
        Tensor.from_list([source.gauss(0, s) for _ in range(n * dim)]).reshape(n, 1, dim)
        for n, s in ((8, sharp), (length, 1.0), (length, 1.0))
    )
    found, exact = (
        x.tolist() for x in (Cache([length], 1, dim).last(q, k, v), ops.scaled_dot_product_attention(q, k, v))
    )
    pairs = [(a, b) for x, y in zip(found, exact, strict=True) for a, b in zip(x[0], y[0], strict=True)]
    off, size = (math.sqrt(math.fsum(x * x for x in xs)) for xs in ([a - b for a, b in pairs], [b for _, b in pairs]))
    assert off < share * size, off / size


@pytest.mark.skipif(not JIT, reason="many numbers")
def test_a_sink_with_next_to_no_value_leaves_the_others_their_steps():
    """Most attention goes to one position, as it does to the first of a text, whose value is small."""
    source = random.Random(1)
    length, dim, lift = 300, 128, 6.0 * math.sqrt(128)
    q = [[[1.0] + [source.gauss(0, 1) for _ in range(dim - 1)]] for _ in range(4)]
    k = [[[lift if j == 0 else 0.0] + [source.gauss(0, 0.3) for _ in range(dim - 1)]] for j in range(length)]
    v = [[[source.gauss(0, 0.05 if j == 0 else 1.0) for _ in range(dim)]] for j in range(length)]
    q, k, v = (Tensor.from_list(x) for x in (q, k, v))
    found, exact = (
        x.tolist() for x in (Cache([length], 1, dim).last(q, k, v), ops.scaled_dot_product_attention(q, k, v))
    )
    pairs = [(a, b) for x, y in zip(found, exact, strict=True) for a, b in zip(x[0], y[0], strict=True)]
    off, size = (math.sqrt(math.fsum(x * x for x in xs)) for xs in ([a - b for a, b in pairs], [b for _, b in pairs]))
    assert off < 0.08 * size, off / size


# --- bits ---


@settings(max_examples=60 if JIT else 3)
@given(data=st.data(), shape=heads((1, 2, 3, 4, 5, 9, 17, 20) if JIT else (1, 2)), threads=THREADS)
def test_bits_do_not_depend_on_batch_chunks_or_threads(data, shape, threads):
    kv_heads, count, dim = shape
    lengths = data.draw(st.lists(st.integers(1, LONGEST), min_size=2, max_size=3, unique=True))
    window = data.draw(st.one_of(st.none(), st.integers(1, 50)))
    drawn = [[data.draw(tensors((n, h, dim))) for h in (count, kv_heads, kv_heads)] for n in lengths]
    whole = []
    for (q, k, v), n in zip(drawn, lengths, strict=True):
        whole.append(Cache([n], kv_heads, dim, GARBAGE[0]).attend([(0, 0, n)], q, k, v, window=window))
    together = Cache(lengths, kv_heads, dim, data.draw(st.sampled_from(GARBAGE)))
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
        found = together.attend(slices, *joined, threads, window=window)
        at = 0
        for i in used:
            a, b = bounds[i]
            assert bits(pick(found, at, at + b - a)) == bits(pick(whole[i], a, b))
            at += b - a


@pytest.mark.parametrize("window", [None, 5, 33])
@pytest.mark.parametrize(("kv_heads", "count", "dim"), [(2, 6, 23), (1, 17, 33), (3, 3, 129)])
def test_token_by_token_is_chunked_is_whole(kv_heads, count, dim, window):
    length = 75 if JIT else 34
    source = random.Random(dim)
    q, k, v = (
        Tensor.from_list([source.gauss(0, 2) for _ in range(length * h * dim)]).reshape(length, h, dim)
        for h in (count, kv_heads, kv_heads)
    )
    whole = Cache([length], kv_heads, dim).attend([(0, 0, length)], q, k, v, window=window)
    for step, threads in ((1, 1), (7, 2), (32, 3)) if JIT else ((7, 2),):
        cache = Cache([length], kv_heads, dim, GARBAGE[step % len(GARBAGE)])
        for a in range(0, length, step):
            b = min(a + step, length)
            found = cache.attend([(0, a, b - a)], *(pick(x, a, b) for x in (q, k, v)), threads, window=window)
            assert bits(found) == bits(pick(whole, a, b)), (step, a)


@settings(max_examples=30 if JIT else 2)
@given(data=st.data(), shape=heads(), tokens=st.integers(1, 3), past=st.integers(0, LONGEST - 3), causal=st.booleans())
def test_what_is_not_written_is_never_read(data, shape, tokens, past, causal):
    kv_heads, count, dim = shape
    length = tokens + past
    q, k, v = (data.draw(tensors((n, h, dim))) for n, h in ((tokens, count), (length, kv_heads), (length, kv_heads)))
    window = data.draw(st.one_of(st.none(), st.integers(1, 50)))
    found = {bits(Cache([length], kv_heads, dim, g).last(q, k, v, causal=causal, window=window)) for g in GARBAGE}
    assert len(found) == 1


@settings(max_examples=40 if JIT else 3)
@given(
    data=st.data(), shape=heads(), length=st.integers(2, LONGEST), bad=st.sampled_from((NAN, INF, -INF, 3e38, -1e30))
)
def test_the_future_and_the_forgotten_change_no_bit(data, shape, length, bad):
    """A key or value of that position reaches those who see it, and nobody else to the bit."""
    kv_heads, count, dim = shape
    q, k, v = (data.draw(tensors((length, h, dim))) for h in (count, kv_heads, kv_heads))
    window = data.draw(st.one_of(st.none(), st.integers(1, 50)))
    j, h, i = (data.draw(st.integers(0, n - 1)) for n in (length, kv_heads, dim))
    clean = Cache([length], kv_heads, dim).last(q, k, v, window=window)
    for x in (k, v):
        spoiled = x.clone()
        spoiled[j, h, i : i + 1].fill_(bad)
        given = (spoiled, v) if x is k else (k, spoiled)
        found = Cache([length], kv_heads, dim).last(q, *given, 2, window=window)
        for t in range(length):
            sees = j <= t and (window is None or j > t - window)
            for head in range(count):
                if sees and head // (count // kv_heads) == h:
                    if not math.isfinite(bad):
                        assert not any(map(math.isfinite, found[t, head].tolist())), (t, head)
                else:
                    assert bits(found[t, head]) == bits(clean[t, head]), (t, head)


@given(place=st.integers(0, 36), head=st.integers(0, 3), bad=st.sampled_from((NAN, INF, -INF)), threads=THREADS)
def test_a_bad_query_spoils_its_own_output_only(place, head, bad, threads):
    length, place = (37, place) if JIT else (5, place % 5)
    q = Tensor.from_list([[[math.sin(t + 3 * h + i) for i in range(18)] for h in range(4)] for t in range(length)])
    k = Tensor.from_list([[[math.cos(t + h - i) for i in range(18)] for h in range(2)] for t in range(length)])
    clean = Cache([length], 2, 18).last(q, k, k)
    q[place, head, 7:8].fill_(bad)
    found = Cache([length], 2, 18).last(q, k, k, threads)
    for t in range(length):
        for h in range(4):
            if (t, h) == (place, head):
                assert not any(map(math.isfinite, found[t, h].tolist()))
            else:
                assert bits(found[t, h]) == bits(clean[t, h])


# --- edges ---


def test_zeros():
    zeros, ones = Tensor.zeros((37, 1, 20)), Tensor.full((37, 1, 20), 0.5)
    found = Cache([37], 1, 20).last(zeros, zeros, zeros)
    assert bits(found) == bits(zeros)
    found = Cache([37], 1, 20).last(zeros, zeros, ones, 2)  # everybody sees the mean of halves
    assert_close(found, ones.tolist(), relative=1e-6)


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_huge_scores_choose_one_position(size):
    dim, length = 48, 70 if JIT else 34
    source = random.Random(3)
    rows = [[source.choice((-1.0, 1.0)) for _ in range(dim)] for _ in range(length)]
    k = Tensor.from_list([[row] for row in rows])
    v = Tensor.from_list([[[float(j % 5), *[source.uniform(1.0, 2.0) for _ in range(dim - 1)]]] for j in range(length)])
    q = Tensor.from_list([[[size * x for x in rows[9]]]])
    found = Cache([length], 1, dim).last(q, k, v, 1)
    assert_close(found, [v[9].tolist()], absolute=4 / 254 * 1.01)


def test_huge_and_tiny_values():
    k = Tensor.zeros((3, 1, 5))
    for size in (1e38, 1e30, 1.0, 1e-20, 1e-27):
        v = Tensor.from_list([[[size, -size, size / 2, 0.0, size / 127]]] * 3)
        found = Cache([3], 1, 5).last(Tensor.zeros((1, 1, 5)), k, v)
        assert_close(found, v[:1].tolist(), absolute=size / 254 * 1.01)
    tiny = Tensor.full((3, 1, 5), 1e-31)  # counts as zero, and stays finite
    assert_close(Cache([3], 1, 5).last(Tensor.zeros((1, 1, 5)), k, tiny), [[[0.0] * 5]])


def test_a_key_beyond_float16_s_scales_shows():
    """127 times 2^15 is about the largest; what is beyond is no number instead of a wrong one."""
    q = v = Tensor.full((1, 1, 5), 1e-6)
    for size, fits in ((4.17e6, True), (4.18e6, False)):
        found = Cache([1], 1, 5).last(q, Tensor.full((1, 1, 5), size), v)
        assert [math.isfinite(x) for x in found[0, 0].tolist()] == [fits] * 5


@pytest.mark.parametrize(("count", "dim"), [(16, 1), (20, 33), (5, 128), (7, 160)])
def test_scratch_is_enough(count, dim):
    """Nothing is written beyond what ``int8_attention_bytes`` says, wherever scratch begins."""
    length, width = 3, ops.attention.value_width(dim)
    cache, x = Cache([length], 1, dim), Tensor.full((length, 1, dim), 0.5)
    q = Tensor.full((length, count, dim), 0.25)
    expected = cache.last(q, x, x)
    batch = Batch(length, 1, 1, 1)
    batch.add([0] * length, 0, cache.tables[0], 0)
    size = int8_attention_bytes(dim, width)
    for offset in (4, 20, 60):
        wide = Tensor.full((size + 256,), 99, "uint8")
        base = wide.address + offset
        out = Tensor.full(q.shape, NAN)
        pools = (cache.keys.address, cache.values.address)
        shape = record(size, 1, count, dim, 1, 0, 1.0 / math.sqrt(dim), device=default_device())
        walk.attention["int8"](out.address, q.address, *pools, batch.record.address, base, shape.address, 1)
        assert bits(out) == bits(expected)
        assert set(wide[:offset].tolist() + wide[offset + size :].tolist()) == {99}


def test_errors_name_the_argument():
    cache, batch = Cache([5], 3, 20), Batch(5, 1, 1, 1)
    batch.add([0] * 5, 0, [0], 0)
    scratch, q, k = ops.attention_scratch(20, Device("cpu", 2)), Tensor.zeros((5, 6, 20)), Tensor.zeros((5, 3, 20))
    keys, values = cache.keys, cache.values

    def attend(q=q, keys=keys, values=values, scratch=scratch, **options):
        ops.paged_attention(q, keys, values, batch, scratch, out=Tensor.zeros(q.shape), **options)

    def write(keys=keys, values=values, k=k, v=k, scratch=scratch):
        ops.write_cache(keys, values, k, v, batch, scratch)

    def eight(*shape):
        return ops.Pages.of(Tensor.zeros(shape, "uint8"), "int8")

    attend()
    write()
    for call in (attend, write):
        with pytest.raises(TensorError, match=r"values is a cache of float16, expected one of int8, as keys is"):
            call(values=Tensor.zeros((1, 3, 32, 32), "float16"))
        with pytest.raises(TensorError, match=r"values has shape \(1, 3, 999\), expected \(1, 3, 1152\)"):
            call(values=eight(1, 3, 999))
        with pytest.raises(TensorError, match=r"keys has shape \(1, 3, 17\), expected \(1, 3, 2176\)"):
            call(keys=eight(1, 3, 17))
        with pytest.raises(TensorError, match=r"keys is a cache of uint8, expected one of float32.*layer\(\) returns"):
            call(keys=Tensor.zeros(keys.shape, "uint8"))  # what is in the bytes, they do not say
        with pytest.raises(TensorError, match=r"values is a cache of uint8, expected one of float32"):
            call(values=Tensor.zeros(values.shape, "uint8"))
        with pytest.raises(TensorError, match=r"keys is int8, expected uint8 for a cache of int8"):
            call(keys=Tensor.zeros(keys.shape, "int8"))
        with pytest.raises(TensorError, match=r"keys is float16, expected uint8 for a cache of int8"):
            call(keys=ops.Pages.of(Tensor.zeros((1, 3, 20, 32), "float16"), "int8"))
        with pytest.raises(TensorError, match=r"keys is uint8, expected float16 for a cache of float16"):
            call(keys=ops.Pages.of(keys, "float16"))
        with pytest.raises(TensorError, match=r"keys has shape \(\d+,\)"):
            call(keys=eight(keys.size))
        with pytest.raises(TensorError, match=r"keys is a bytes, expected a pio.Tensor"):
            call(keys=b"abc")
        with pytest.raises(TensorError, match="keys is a strided view"):
            call(keys=ops.Pages.of(Tensor.zeros((1, 6, 2176), "uint8")[:, ::2], "int8"))
        with pytest.raises(TensorError, match=r"scratch has shape \(8, \d+\), heads of width 20 need"):
            call(scratch=ops.attention_scratch(20, Device("cpu", 2))[:, :-16].contiguous())
        with pytest.raises(TensorError, match=r"scratch has shape \(0, \d+\)"):
            call(scratch=Tensor.zeros((0, scratch.shape[1])))
    with pytest.raises(TensorError, match="4 query heads do not divide among 3"):
        attend(q=Tensor.zeros((5, 4, 20)))
    none = [eight(1, 0, n) for n in (2176, 1152)]
    with pytest.raises(TensorError, match="6 query heads do not divide among 0"):
        attend(keys=none[0], values=none[1])
    with pytest.raises(TensorError, match="window is 0, expected at least 1"):
        attend(window=0)
    with pytest.raises(TensorError, match=r"keys has shape \(1, 2, 2176\)"):
        write(*(eight(1, 2, n) for n in (2176, 1152)))
    with pytest.raises(TensorError, match="v has shape"):
        write(v=Tensor.zeros((5, 3, 21)))
    with pytest.raises(TensorError, match="k is float16"):
        write(k=k.astype("float16"))
    with pytest.raises(TensorError, match="read-only"):
        write(keys=ops.Pages.of(Tensor.from_buffer(bytes(keys.size), "uint8", keys.shape), "int8"))
