"""Rotary position embedding on a GPU beside the CPU's."""

import pytest
from gpu_case import bytes_of, run
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


@pytest.mark.parametrize("interleaved", [0, 1])
@settings(max_examples=8)
@given(tokens=st.integers(1, 5), heads=st.integers(1, 3), half=st.integers(1, 40), more=st.integers(0, 9))
def test_rope(interleaved, tokens, heads, half, more):
    dim, wide = 2 * half + more, 2 * half + more + 3
    cos, sin = numbers(tokens, half, seed=2), numbers(tokens, half, seed=3)
    whole = numbers(tokens, heads, wide)
    wanted = whole.clone()
    ops.rope(wanted[:, :, 3:], cos, sin, interleaved=bool(interleaved))
    x = whole[:, :, 3:]
    assert x.shape[-1] == dim
    run(rope.rope, x, cos, sin, tokens, heads, wide, half, heads * wide, interleaved, reading=(cos, sin))
    assert bytes_of(whole) == bytes_of(wanted)
