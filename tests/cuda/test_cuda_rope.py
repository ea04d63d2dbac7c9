"""Rotary position embedding on a GPU beside the CPU's."""

import pytest
from gpu_case import bytes_of, relative_error, run, words
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_norm import numbers

from pio import ops
from pio.kernels.cuda import rope
from pio.tensor import Tensor


def table(tokens, half, axes, seed):
    positions = [(i * 7919 * seed) % 300_000 for i in range(axes * tokens)]
    freqs = Tensor.from_list([10000.0 ** (-i / half) for i in range(half)])
    chosen = Tensor.from_list([(i * seed) % axes for i in range(half)], "int32")
    return Tensor.from_list(positions, "int32").reshape(axes, tokens), freqs, chosen


@settings(max_examples=6)
@given(
    tokens=st.integers(1, 5), half=st.integers(1, 40), axes=st.integers(1, 3), seed=st.integers(1, 9),
    scale=st.sampled_from([1.0, 1.2079]),
)  # fmt: skip
def test_table(tokens, half, axes, seed, scale):
    positions, freqs, chosen = table(tokens, half, axes, seed)
    wanted = ops.rope_table(positions, freqs, axes=chosen, scale=scale)
    cos, sin = Tensor.zeros((tokens, half)), Tensor.zeros((tokens, half))
    run(
        rope.rope_table, cos, sin, positions, freqs, chosen, tokens, tokens, half, scale,
        reading=(positions, freqs, chosen),
    )  # fmt: skip
    for found, right in zip((cos, sin), wanted, strict=True):
        flat = zip(found.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True)
        assert max(abs(a - b) for a, b in flat) <= 2.0**-23


def test_a_table_of_one_axis():
    positions, freqs, _ = table(3, 8, 1, 5)
    wanted = ops.rope_table(positions[0], freqs)
    cos, sin = Tensor.zeros((3, 8)), Tensor.zeros((3, 8))
    run(rope.rope_table, cos, sin, positions, freqs, 0, 0, 3, 8, 1.0)
    assert max(abs(a - b) for a, b in zip(cos.reshape(-1).tolist(), wanted[0].reshape(-1).tolist(), strict=True)) < 2e-7


def turning(q, k, out, half, interleaved, zero_centred=0):
    """The record of heads that turn."""
    apart = *out.strides[:2], *q.strides[:2], *k.strides[:2]
    return words(q.shape[1], k.shape[1], q.shape[2], half, *apart, interleaved, zero_centred, 1e-5)


@pytest.mark.parametrize("interleaved", [0, 1])
@settings(max_examples=8)
@given(tokens=st.integers(1, 5), heads=st.integers(1, 3), half=st.integers(1, 40), more=st.integers(0, 9))
def test_rope(interleaved, tokens, heads, half, more):
    dim, wide = 2 * half + more, 2 * half + more + 3
    cos, sin = numbers(tokens, half, seed=2), numbers(tokens, half, seed=3)
    whole, keys = numbers(tokens, heads, wide), numbers(tokens, heads + 1, dim, seed=4)
    right, right_keys = whole.clone(), keys.clone()
    ops.rope(right[:, :, 3:], cos, sin, interleaved=bool(interleaved))
    ops.rope(right_keys, cos, sin, interleaved=bool(interleaved))
    x = whole[:, :, 3:]
    shape = turning(x, keys, x, half, interleaved)
    run(rope.qk_norm_rope["float32"], x, x, keys, 0, 0, cos, sin, tokens, shape, reading=(cos, sin, shape))
    assert bytes_of(whole) == bytes_of(right)
    assert bytes_of(keys) == bytes_of(right_keys)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@settings(max_examples=6)
@given(
    tokens=st.integers(1, 4), heads=st.integers(1, 4), kv_heads=st.integers(0, 3), half=st.integers(0, 70),
    more=st.integers(1, 150), interleaved=st.integers(0, 1), zero_centred=st.integers(0, 1), elsewhere=st.booleans(),
)  # fmt: skip
def test_heads_that_are_normalised_first(
    dtype, tokens, heads, kv_heads, half, more, interleaved, zero_centred, elsewhere
):
    dim = 2 * half + more
    cos, sin = numbers(tokens, half, seed=2), numbers(tokens, half, seed=3)
    norms = numbers(dim, seed=5, dtype=dtype), numbers(dim, seed=6, dtype=dtype)
    whole, keys = numbers(tokens, heads, 2 * dim), numbers(tokens, kv_heads, dim, seed=4)
    q, before = whole[:, :, :dim], whole.clone()
    out = numbers(tokens, heads, dim, seed=7) if elsewhere else q
    more_of = {"eps": 1e-5, "zero_centred": bool(zero_centred), "interleaved": bool(interleaved)}
    right, right_keys = ops.qk_norm_rope(q.contiguous(), keys.clone(), cos, sin, norms=norms, **more_of)
    shape, kernel = turning(q, keys, out, half, interleaved, zero_centred), rope.qk_norm_rope[dtype]
    read = (cos, sin, shape, *norms, *((whole,) if elsewhere else ()))
    run(kernel, out, q, keys, *norms, cos, sin, tokens, shape, reading=read)
    assert relative_error(out.contiguous(), right.reshape(-1).tolist()) <= 3e-7
    assert relative_error(keys, right_keys.reshape(-1).tolist()) <= 3e-7
    assert bytes_of(whole[:, :, dim:].contiguous()) == bytes_of(before[:, :, dim:].contiguous())


def test_bits_of_a_head_do_not_depend_on_others():
    cos, sin, weight = numbers(3, 9, seed=2), numbers(3, 9, seed=3), numbers(40, seed=5)
    found = []
    for first, last, heads, multiprocessors in ((0, 3, 5, 1), (0, 3, 2, 3), (1, 2, 1, 2)):
        q, k = numbers(3, 5, 40)[first:last, :heads].clone(), numbers(3, 1, 40, seed=4)[first:last].clone()
        given = cos[first:last].clone(), sin[first:last].clone()
        shape = turning(q, k, q, 9, 0)
        run(
            rope.qk_norm_rope["float32"], q, q, k, weight, weight, *given, last - first, shape,
            multiprocessors=multiprocessors,
        )  # fmt: skip
        found.append((bytes_of(q[1 - first, 0]), bytes_of(k[1 - first])))
    assert found[0] == found[1] == found[2]
