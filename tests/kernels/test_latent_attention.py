import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latent_cache import Paged, assert_bits_depend_on_the_sequence_alone

from pio import ops
from pio.cache.batch import Batch
from pio.cache.latent import PagedLatentCache
from pio.device import Device
from pio.dtypes import dtype
from pio.errors import OutOfMemoryError, PioError, TensorError
from pio.kernels._float_latent import ROWS, tile_rows
from pio.kernels.latent_attention import heads_of_piece
from pio.memory.budget import MemoryBudget
from pio.ops import compilation
from pio.ops.latent_attention import latent_layout
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.latent_attention import expanded_attention, latent_attention
from pio.testing.strategies import FLOATS, sizes, tensors, views

THREADS = st.sampled_from((1, 2, 3))
# without the compiler a score takes a millisecond: two blocks and a bit must do
LONGEST, HEADS, RANK, ROPE = (90, 27, 70, 20) if compilation.enabled() else (38, 4, 34, 5)
SHAPES = sizes((1, HEADS), (1, RANK), (1, ROPE))


def slack_of(q, q_rope, latent, key, scale):
    """An error in a score moves a probability by as much again."""

    def largest(x):
        return max(map(abs, x.contiguous().memoryview().cast("B").cast("f")))

    spread = largest(q) * largest(latent) * q.shape[2] + largest(q_rope) * largest(key) * q_rope.shape[2]
    return largest(latent) * (3e-6 + 3e-7 * spread * abs(scale))


@given(data=st.data(), shape=SHAPES, tokens=st.integers(1, 9), past=st.integers(0, LONGEST - 9), threads=THREADS)
def test_latent_attention(data, shape, tokens, past, threads):
    heads, rank, rope = shape
    q, q_rope = (data.draw(views(data.draw(tensors((tokens, heads, n))))) for n in (rank, rope))
    latent, key = (data.draw(tensors((tokens + past, n))) for n in (rank, rope))
    scale = data.draw(st.sampled_from((0.3, 0.05, 0.0)))
    paged = Paged([tokens + past], rank, rope, "float32")
    if past:
        paged.write([(0, 0, past)], latent[:past], key[:past], 1)
    new = (data.draw(views(x[past:], axes=(0,))) for x in (latent, key))
    found = paged.attend([(0, past, tokens)], q, q_rope, *new, threads, scale)
    lists = (x.tolist() for x in (q, q_rope, latent, key))
    assert_close(found, latent_attention(*lists, scale=scale), absolute=slack_of(q, q_rope, latent, key, scale))


@pytest.mark.parametrize("kind", FLOATS)
@given(data=st.data(), shape=SHAPES, threads=THREADS)
def test_bits_do_not_depend_on_batch_chunks_or_threads(data, shape, threads, kind):
    assert_bits_depend_on_the_sequence_alone(data, shape, kind, LONGEST, threads)


def numbers(*shape, seed=0):
    source, count = random.Random(seed), math.prod(shape)
    return Tensor.from_list([source.gauss(0, 1) for _ in range(count)]).reshape(*shape)


@pytest.mark.parametrize("kind", FLOATS)
def test_token_by_token(kind):
    heads, rank, rope, length = (23, 48, 18, 70) if compilation.enabled() else (3, 18, 2, 34)
    given = [
        numbers(length, *shape, seed=i) for i, shape in enumerate(((heads, rank), (heads, rope), (rank,), (rope,)))
    ]
    whole = Paged([length], rank, rope, kind).attend([(0, 0, length)], *given, 2)
    stepwise = Paged([length], rank, rope, kind)
    for t in range(length):
        found = stepwise.attend([(0, t, 1)], *(x[t : t + 1] for x in given), 1 + t % 3)
        assert bits(found) == bits(whole[t : t + 1])


@pytest.mark.parametrize("kind", FLOATS)
def test_a_cache_rounds_to_its_type(kind):
    heads, rank, rope, length = 3, 33, 6, 37
    q, q_rope, latent, key = (
        numbers(length, *shape, seed=i) for i, shape in enumerate(((heads, rank), (heads, rope), (rank,), (rope,)))
    )
    found = Paged([length], rank, rope, kind).attend([(0, 0, length)], q, q_rope, latent, key, 2)
    rounded = (x.astype(kind).tolist() for x in (latent, key))
    assert_close(found, latent_attention(q.tolist(), q_rope.tolist(), *rounded, scale=0.3), absolute=3e-5)


def test_absorbed_form_is_attention_over_expanded_keys_and_values():
    """From a projection as checkpoints store it to the values of each head, beside keys and values made one by one."""
    heads, key_dim, value_dim, rope, rank = (5, 12, 7, 6, 40) if compilation.enabled() else (2, 5, 3, 4, 9)
    length, past, scale = 41, 39, 1 / math.sqrt(key_dim + rope)
    weight = numbers(heads * (key_dim + value_dim), rank)
    q = numbers(length - past, heads, key_dim + rope, seed=1)  # as one projection makes it
    latent, key = numbers(length, rank, seed=2), numbers(length, rope, seed=3)
    up_keys, up_values = ops.absorbed_weights(weight, heads, key_dim, value_dim)
    paged = Paged([length], rank, rope, "float32")
    paged.write([(0, 0, past)], latent[:past], key[:past], 2)
    absorbed = ops.head_linear(q[:, :, :key_dim], up_keys)
    attended = paged.attend(
        [(0, past, length - past)], absorbed, q[:, :, key_dim:], latent[past:], key[past:], 2, scale
    )
    found = ops.head_linear(attended, up_values)
    expected = expanded_attention(
        q[:, :, :key_dim].tolist(),
        q[:, :, key_dim:].tolist(),
        latent.tolist(),
        key.tolist(),
        weight.reshape(heads, key_dim + value_dim, rank).tolist(),
        scale=scale,
    )
    assert_close(found, expected, absolute=1e-3)


def test_stale_blocks_are_never_read():
    """The pool is full of NaN; only what the sequence wrote may reach its output."""
    latent, key = Tensor.full((33, 5), 0.5), Tensor.full((33, 3), 2.0)
    q, q_rope = Tensor.full((33, 2, 5), 1.0), Tensor.full((33, 2, 3), 1.0)
    found = Paged([33], 5, 3, "float16").attend([(0, 0, 33)], q, q_rope, latent, key, 2)
    assert all(x == 0.5 for row in found.tolist() for head in row for x in head)


def test_every_row_is_in_one_tile_and_every_head_in_one_piece():
    for rows in range(1, 2 * ROWS):
        left = rows
        while left:
            assert 1 <= tile_rows(left) <= left
            left -= tile_rows(left)
    for heads in range(1, 130):
        for groups in (1, 2, 3, 7):
            for threads in (1, 2, 3, 8):
                step = heads_of_piece(heads, groups, threads, ROWS)
                assert 1 <= step <= min(ROWS, heads)
                pieces = -(-heads // step) * groups
                assert 2 * pieces > min(threads, heads * groups)


def test_the_cache_takes_the_latent_and_the_key_and_no_byte_more():
    for kind, itemsize in (("float32", 4), ("float16", 2), ("bfloat16", 2)):
        cache = PagedLatentCache(3, 1000, 512, 64, dtype(kind))
        assert (cache.block_size, cache.num_blocks) == (32, 32)
        assert cache.nbytes == 3 * 32 * 32 * 576 * itemsize
        layers = [cache.layer(i) for i in range(3)]
        assert all(x.shape == (32, 32, 576) and x.dtype.name == kind for x in layers)
        assert layers[1].address - layers[0].address == cache.nbytes // 3
    assert PagedLatentCache(1, 0, 40, 6, dtype("float32")).layer(0).shape == (1, 32, 72)  # zeros up to eights


def test_a_cache_is_counted_freed_and_of_floats():
    budget = MemoryBudget(1 << 20)
    with pytest.raises(OutOfMemoryError, match="a cache of 8192 tokens"):
        PagedLatentCache(1, 8192, 512, 64, dtype("float16"), budget=budget)
    cache = PagedLatentCache(1, 64, 512, 64, dtype("float16"), budget=budget)
    cache.free()
    with pytest.raises(PioError, match="this cache was freed"):
        cache.layer(0)
    with pytest.raises(TensorError, match="a cache of latents cannot be int32"):
        PagedLatentCache(1, 64, 512, 64, dtype("int32"))


def test_errors_name_the_argument():
    batch = Batch(3, 1, 1, 1)
    batch.add([0] * 3, 0, [0], 0)
    fits = {
        "q_latent": Tensor.zeros((3, 2, 5)),
        "q_rope": Tensor.zeros((3, 2, 4)),
        "cache": Tensor.zeros((1, 32, 40)),
        "scratch": ops.latent_scratch(5, 4, Device("cpu", 1)),
        "out": Tensor.zeros((3, 2, 5)),
    }
    ops.latent_attention(**fits, batch=batch, scale=1.0)
    for name, wrong, match in (
        ("q_latent", [1.0], "q_latent is a list, expected a pio.Tensor"),
        ("q_latent", Tensor.zeros((3, 10)), r"q_latent has shape \(3, 10\)"),
        ("q_rope", [1.0], "q_rope is a list, expected a pio.Tensor"),
        ("q_rope", Tensor.zeros((3, 3, 4)), r"q_rope has shape \(3, 3, 4\), expected \(3, 2, 4\)"),
        ("q_rope", Tensor.zeros((3, 2, 0)), "no heads, or heads of width 0"),
        (
            "q_rope",
            Tensor.zeros((3, 2, 9)),
            r"cache has shape \(1, 32, 40\), expected \(blocks, 32, 48\) for latents of 5",
        ),
        ("cache", [1.0], "cache is a list, expected a pio.Tensor"),
        ("cache", Tensor.zeros((1, 32, 40), "int32"), r"cache is a cache of int32, expected one of float32"),
        ("cache", Tensor.zeros((1, 4352), "uint8"), r"cache is a cache of uint8, .* give what the cache's layer\(\)"),
        ("cache", ops.Pages.of(Tensor.zeros((1, 32, 40)), "int8"), r"cache is float32, expected uint8 for a cache of"),
        ("cache", Tensor.zeros((1, 40, 32)).transpose(0, 2, 1), "cache is a strided view"),
        ("scratch", Tensor.zeros((3, 9999)), r"scratch has shape \(3, 9999\), .* latent_scratch\(5, 4\)"),
        ("scratch", Tensor.zeros((4, 9)), r"scratch has shape \(4, 9\)"),
        ("out", Tensor.zeros((3, 2, 4)), r"out has shape \(3, 2, 4\), expected \(3, 2, 5\)"),
        ("out", fits["q_latent"], "out shares memory with q_latent"),
    ):
        with pytest.raises(TensorError, match=f"^latent_attention: .*{match}"):
            ops.latent_attention(**(fits | {name: wrong}), batch=batch, scale=1.0)
    latent, key = Tensor.zeros((3, 5)), Tensor.zeros((3, 4))
    ops.write_latent_cache(fits["cache"], latent, key, batch)
    for wrongs, match in (
        ((fits["cache"], latent, [1.0]), "key is a list"),
        ((fits["cache"], latent, Tensor.zeros((3, 1, 4))), r"key \(3, 1, 4\), .* drop the axis of heads"),
        ((fits["cache"], latent, Tensor.zeros((2, 4))), r"latent has shape \(3, 5\) and key \(2, 4\)"),
        ((fits["cache"], latent.astype("float16"), key), "latent is float16, expected float32"),
        ((Tensor.zeros((1, 16, 40)), latent, key), r"cache has shape \(1, 16, 40\)"),
        ((fits["cache"], fits["cache"].reshape(32 * 40)[:15].reshape(3, 5), key), "cache shares memory with latent"),
    ):
        with pytest.raises(TensorError, match=f"^write_latent_cache: .*{match}"):
            ops.write_latent_cache(*wrongs, batch)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_scratch_is_memory_of_its_own(kind):
    batch = Batch(3, 1, 1, 1)
    batch.add([0] * 3, 0, [0], 0)
    stored, shape = latent_layout(kind, 1, 5, 4)
    scratch = ops.latent_scratch(5, 4, Device("cpu", 1))
    fits = {
        "q_latent": Tensor.zeros((3, 2, 5)),
        "q_rope": Tensor.zeros((3, 2, 4)),
        "cache": ops.Pages.of(Tensor.zeros(shape, stored), kind),
        "out": Tensor.zeros((3, 2, 5)),
    }
    ops.latent_attention(**fits, scratch=scratch, batch=batch, scale=1.0)
    for name, x in fits.items():
        memory = bytearray(max(x.nbytes, scratch.nbytes))
        shared = Tensor.from_buffer(memoryview(memory)[: x.nbytes], x.dtype, x.shape)
        if name == "cache":
            shared = ops.Pages.of(shared, kind)
        inside = Tensor.from_buffer(memoryview(memory)[: scratch.nbytes], "float32", scratch.shape)
        with pytest.raises(TensorError, match=f"^latent_attention: scratch shares memory with {name}"):
            ops.latent_attention(**(fits | {name: shared}), scratch=inside, batch=batch, scale=1.0)
    frozen = Tensor.from_buffer(bytes(scratch.nbytes), "float32", scratch.shape)
    with pytest.raises(TensorError, match=r"^latent_attention: scratch is read-only"):
        ops.latent_attention(**fits, scratch=frozen, batch=batch, scale=1.0)
