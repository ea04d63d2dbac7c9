import ctypes
import functools
import math
import random

import pytest
from arm_by_hand import by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_cache import GARBAGE
from latent_cache import BLOCK, Paged, assert_bits_depend_on_the_sequence_alone
from numba import njit, types

from pio import ops
from pio.cache.batch import Batch
from pio.cache.latent import PagedLatentCache
from pio.device import default_device
from pio.dtypes import dtype
from pio.errors import TensorError
from pio.kernels import latent_attention as walk
from pio.kernels import quantized_latent as kernels
from pio.kernels._jit import CONTRACT, OPTIONS
from pio.kernels._processor import compiles_for
from pio.kernels._quarters import ARM
from pio.kernels.quantized_tiles import DOT, DOTS
from pio.kernels.simd import JIT
from pio.kernels.sizes import int8_latent_bytes
from pio.ops._record import record
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import quantized_attention as attention
from pio.testing.reference import quantized_latent as reference
from pio.testing.strategies import numbers, sizes, tensors, views

THREADS = st.sampled_from((1, 2, 3))
INF, NAN = math.inf, math.nan
# without the compiler a score takes a millisecond: two blocks and a bit must do
LONGEST, HEADS, RANK, ROPE = (90, 23, 140, 70) if JIT else (38, 3, 66, 5)
SHAPES = sizes((1, HEADS), (1, RANK), (1, ROPE))


def holds(paged, length):
    """Latents and keys of the first sequence as they are stored."""
    raw, size = bytes(paged.cache.memoryview().cast("B")), paged.cache.shape[1]
    blocks = [raw[page * size : (page + 1) * size] for page in paged.tables[0]]
    return [reference.read(blocks[j // BLOCK], j % BLOCK, paged.rank, paged.rope) for j in range(length)]


@settings(max_examples=60 if JIT else 4)
@given(data=st.data(), shape=SHAPES, tokens=st.integers(1, 6), past=st.integers(0, LONGEST - 6), threads=THREADS)
def test_quantized_latent_attention(data, shape, tokens, past, threads):
    heads, rank, rope = shape
    q, q_rope = (data.draw(views(data.draw(tensors((tokens, heads, n))))) for n in (rank, rope))
    latent, key = (data.draw(tensors((tokens + past, n))) for n in (rank, rope))
    scale = data.draw(st.sampled_from((0.3, 0.01, 0.0)))
    paged = Paged([tokens + past], rank, rope, "int8", data.draw(st.sampled_from(GARBAGE)))
    found = paged.last(q, q_rope, latent, key, threads, scale)
    queries = [
        [[*reference.padded(a), *reference.padded(b)] for a, b in zip(*rows, strict=True)]
        for rows in zip(q.tolist(), q_rope.tolist(), strict=True)
    ]
    stored = holds(paged, tokens + past)
    keys = [[[tuple(group) for group in (*c, *k)]] for c, k in stored]
    values = [[(c[0].scale, [x for group in c for x in group.numbers][:rank])] for c, _ in stored]
    expected = attention.quantized_attention(queries, keys, values, scale=scale, precision=2e-6)
    slack = [[[s + 1e-30 for s in one.slack] for one in row] for row in expected]
    # outputs of the twin are as wide as values; sums of 32-bit floats besides
    assert_close(found, [[one.numbers for one in row] for row in expected], absolute=slack, relative=1e-6)


@settings(max_examples=60 if JIT else 4)
@given(data=st.data(), shape=SHAPES, length=st.integers(1, 40), threads=THREADS)
def test_what_is_stored(data, shape, length, threads):
    _, rank, rope = shape
    latent, key = (data.draw(tensors((length, n), special=(0.0,))) for n in (rank, rope))
    paged = Paged([length], rank, rope, "int8")
    paged.write([(0, 0, length)], latent, key, threads)
    assert paged.cache.shape == (-(-length // BLOCK), reference.block_bytes(rank, rope))
    for j, parts in enumerate(holds(paged, length)):
        for groups, x in zip(parts, (latent, key), strict=True):
            row = reference.padded(x[j].tolist())
            largest = max(map(abs, row))
            assert len({group.scale for group in groups}) == 1
            scale = groups[0].scale
            assert scale == pytest.approx(largest / 127, rel=2**-10, abs=2**-24) and scale > 0
            for number, value in zip((n for group in groups for n in group.numbers), row, strict=True):
                # half a step, and what the scale itself lost: float16 has no steps finer than 2**-24
                slack = 0.5001 * scale + 2**-11 * abs(value) + 127 * 2**-25
                assert -127 <= number <= 127 and abs(number * scale - value) <= slack


@pytest.mark.skipif(not JIT, reason="many numbers")
@pytest.mark.parametrize(("sharp", "share"), [(0.02, 0.012), (0.1, 0.03)])
def test_what_eight_bits_cost_as_a_rule(sharp, share):
    """Errors are independent, so that they are far below their bound: a share of what the outputs measure."""
    source = random.Random(5)
    heads, rank, rope, length = 4, 256, 64, 300
    drawn = [
        Tensor.from_list([source.gauss(0, 1) for _ in range(math.prod(shape))]).reshape(*shape)
        for shape in ((3, heads, rank), (3, heads, rope), (length, rank), (length, rope))
    ]
    found, exact = (Paged([length], rank, rope, kind).last(*drawn, 2, sharp) for kind in ("int8", "float32"))
    pairs = list(zip(found.reshape(-1).tolist(), exact.reshape(-1).tolist(), strict=True))
    off, size = (math.sqrt(math.fsum(x * x for x in xs)) for xs in ([a - b for a, b in pairs], [b for _, b in pairs]))
    assert off < share * size, off / size


@settings(max_examples=60 if JIT else 3)
@given(data=st.data(), shape=SHAPES, threads=THREADS)
def test_bits_do_not_depend_on_batch_chunks_or_threads(data, shape, threads):
    assert_bits_depend_on_the_sequence_alone(data, shape, "int8", LONGEST, threads)


@settings(max_examples=40 if JIT else 3)
@given(data=st.data(), shape=SHAPES, length=st.integers(2, LONGEST), bad=st.sampled_from((NAN, INF, -INF, 3e38, -1e30)))
def test_the_future_changes_no_bit(data, shape, length, bad):
    """A latent or key that is no number, or too large, spoils the output of those who see it, and nobody else's."""
    heads, rank, rope = shape
    drawn = [data.draw(tensors((length, *s))) for s in ((heads, rank), (heads, rope), (rank,), (rope,))]
    j = data.draw(st.integers(0, length - 1))
    clean = Paged([length], rank, rope, "int8").last(*drawn)
    for which in (2, 3):
        spoiled = [*drawn]
        spoiled[which] = drawn[which].clone()
        spoiled[which][j, :1].fill_(bad)
        found = Paged([length], rank, rope, "int8").last(*spoiled, 2)
        assert bits(found[:j]) == bits(clean[:j])
        assert not any(map(math.isfinite, found[j:].reshape(-1).tolist()))


def test_zeros():
    zeros, ones = Tensor.zeros((37, 20)), Tensor.full((37, 20), 0.5)
    q, q_rope = Tensor.zeros((37, 2, 20)), Tensor.zeros((37, 2, 6))
    key = Tensor.zeros((37, 6))
    assert bits(Paged([37], 20, 6, "int8").last(q, q_rope, zeros, key)) == bits(q)
    found = Paged([37], 20, 6, "int8").last(q, q_rope, ones, key, 2)
    assert_close(found, Tensor.full((37, 2, 20), 0.5).tolist(), relative=1e-3)  # a scale has eleven bits


@pytest.mark.parametrize(("heads", "rank", "rope"), [(16, 1, 3), (20, 65, 64), (5, 128, 70), (7, 40, 2)])
def test_scratch_is_enough(heads, rank, rope):
    """Nothing is written beyond what ``int8_latent_bytes`` says, wherever scratch begins."""
    length, paged = 3, Paged([3], rank, rope, "int8")
    latent, key = Tensor.full((length, rank), 0.5), Tensor.full((length, rope), 0.25)
    q, q_rope = Tensor.full((length, heads, rank), 0.25), Tensor.full((length, heads, rope), 0.5)
    expected = paged.last(q, q_rope, latent, key)
    batch = Batch(length, 1, 1, 1)
    batch.add([0] * length, 0, paged.tables[0], 0)
    size = int8_latent_bytes(rank, rope)
    for offset in (4, 20, 60):
        wide = Tensor.full((size + 256,), 99, "uint8")
        out = Tensor.full(q.shape, NAN)
        as_heads, strides = (size, 1, heads, rank, 1, 0, 0.3), (heads * rank, rank, heads * rope, rope)
        shape = record(*as_heads, *strides, rope, device=default_device())
        at = (batch.record.address, wide.address + offset, shape.address)
        walk.latent_attention["int8"](out.address, q.address, q_rope.address, paged.cache.address, *at, 1)
        assert bits(out) == bits(expected)
        assert set(wide[:offset].tolist() + wide[offset + size :].tolist()) == {99}


def test_a_cache_of_eight_bits_takes_little_more_than_its_numbers():
    cache = PagedLatentCache(3, 1000, 512, 64, dtype("int8"))
    assert cache.nbytes == 3 * 32 * 32 * 576 * 17 // 16
    found = cache.layer(2)
    assert (found.shape, found.dtype.name, found.format) == ((32, 19584), "uint8", "int8")


def test_errors_name_the_argument():
    batch = Batch(3, 1, 1, 1)
    batch.add([0] * 3, 0, [0], 0)
    wrong = ops.Pages.of(Tensor.zeros((1, 4351), "uint8"), "int8")
    with pytest.raises(
        TensorError, match=r"write_latent_cache: cache has shape \(1, 4351\), expected \(blocks, 4352\)"
    ):
        ops.write_latent_cache(wrong, Tensor.zeros((3, 5)), Tensor.zeros((3, 4)), batch)
    with pytest.raises(TensorError, match=r"latent_attention: cache has shape \(1, 4351\), expected \(blocks, 4352\)"):
        q, q_rope, scratch = Tensor.zeros((3, 2, 5)), Tensor.zeros((3, 2, 4)), ops.latent_scratch(5, 4)
        ops.latent_attention(q, q_rope, wrong, batch, scratch, out=Tensor.zeros(q.shape), scale=1.0)


# --- the tile ---

HERE = ["portable", *ARM, *(["avx2"] if compiles_for("avx2") else [])]
if DOT not in HERE:
    HERE.append(DOT)


@functools.cache
def compiled(rows, dot):
    tile = kernels.latents_tile(rows, dot)

    @njit(**OPTIONS, fastmath=CONTRACT)
    def run(acc, p, v, pairs, half):
        tile(acc, p, v, pairs, half)

    if JIT:
        with by_hand(dot):
            run.compile((types.int64,) * 5)
    return run


@pytest.mark.parametrize("rows", [1, 3, 4])
@settings(max_examples=40 if JIT else 3)
@given(data=st.data(), pairs=st.sampled_from((1, 2)), more=st.integers(0, 1), extreme=st.booleans())
def test_every_variant_of_the_tile_is_the_same_to_the_bit(rows, data, pairs, more, extreme):
    assert set(HERE) <= {*DOTS, *ARM}
    source = random.Random(data.draw(st.integers(0, 999)))
    width, half = 64 * pairs, (pairs + more) * reference.PAIR_BYTES
    chances = [[127 if extreme else source.randint(0, 127) for _ in range(BLOCK)] for _ in range(rows)]
    scales = [ctypes.c_float(source.uniform(0.001, 3.0)).value for _ in range(rows)]
    start = data.draw(numbers(rows * width))
    p = b"".join(bytes(row) + bytes(ctypes.c_float(s)) + b"-" * 12 for row, s in zip(chances, scales, strict=True))
    v = bytes(source.choice((0, 255)) if extreme else source.randrange(256) for _ in range(2 * half))
    at_p, at_v = (Tensor.from_buffer(bytearray(x), "uint8") for x in (p, v))
    found = {}
    for dot in HERE:
        acc = Tensor.from_list([7.0, *start, 7.0])
        compiled(rows, dot)(acc[1:].address, at_p.address, at_v.address, pairs, half)
        assert (acc[0].item(), acc[-1].item()) == (7.0, 7.0)
        found[dot] = bits(acc)
    assert len(set(found.values())) == 1
    values = [[x for g in reference.read(v, j, width, 64 * more)[0] for x in g.numbers] for j in range(BLOCK)]
    before = Tensor.from_list(start).tolist()
    for r in range(rows):
        for d in range(width):
            dots = sum(chances[r][j] * values[j][d] for j in range(BLOCK))
            slack = 2e-7 * (abs(before[r * width + d]) + abs(scales[r] * dots))
            assert abs(acc[1 + r * width + d].item() - before[r * width + d] - scales[r] * dots) <= slack
