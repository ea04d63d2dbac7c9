"""The gated delta rule, convolutions and what commits their tokens, on a GPU beside the CPU."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from attention_case import held_record, some
from gpu_case import bytes_of, relative_error, run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.kernels import sizes
from pio.kernels.cuda import causal_conv, commit, gated_delta
from pio.ops.gated_delta import state_shape
from pio.ops.slices import Slices
from pio.ops.window import Window, window_shapes
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

ROOM = 5  # tokens of a window


def flat(x: Tensor) -> list[float]:
    return x.reshape(-1).tolist()


def batch_of(*parts: tuple[int, int, int, int | None, bool]) -> Slices:
    """A batch of (tokens, past, slot, source, whether tentative)."""
    made = Slices(len(parts), 1)
    for tokens, past, slot, source, tentative in parts:
        made.append(tokens, past, [0], slot, source, tentative=tentative)
    return made


class Delta:
    """Tokens and states of a layer."""

    def __init__(self, tokens: int, key_heads: int, group: int, dim: int, value_dim: int, slots: int = 4) -> None:
        rng = random.Random(tokens * 31 + dim)
        self.heads, self.key_heads, self.dim, self.value_dim = key_heads * group, key_heads, dim, value_dim
        self.q, self.k = (some(rng, tokens, key_heads, dim) for _ in range(2))
        self.v = some(rng, tokens, self.heads, value_dim)
        a, b = (some(rng, tokens, self.heads) for _ in range(2))
        rate, bias = some(rng, self.heads, spread=0.3), some(rng, self.heads)
        self.beta, self.decay = ops.delta_gates(b, a, rate, bias)
        shape = state_shape(slots, self.heads, dim, value_dim)
        self.state = some(rng, *shape, spread=0.2)
        behind = value_dim % sizes.SLICE
        if behind:
            self.state[:, :, -1:, :, behind:].copy_(Tensor.zeros((slots, self.heads, 1, dim, sizes.SLICE - behind)))
        shapes = window_shapes(ROOM, ((3, 1), shape[1:]), key_heads)
        made = {name: Tensor.zeros(shape) for name, shape in shapes.items()}
        self.window = Window(desks=Tensor.zeros((sizes.SLICE_PARTS * 64, dim, sizes.SLICE)), **made)

    def on_gpu(self, batch: Slices, state: Tensor, first: int, last: int, multiprocessors: int = 1) -> Tensor:
        """Run the GPU's kernels on some of the tokens."""
        q, k, v = (x[first:last] for x in (self.q, self.k, self.v))
        gates = Tensor.empty((2, last - first, self.heads))
        gates[0].copy_(self.decay[first:last])
        gates[1].copy_(self.beta[first:last])
        decay, beta = gates[0], gates[1]
        out, scales = Tensor.full(v.shape, 7.0), Tensor.full((last - first, self.key_heads, 2), 7.0)
        w, near = self.window, self.key_heads * self.dim
        shape = held_record(
            self.heads, self.key_heads, self.dim, self.value_dim, self.heads * self.value_dim, near, self.dim, near,
            self.dim, self.heads * self.value_dim, self.value_dim, beta.address - decay.address, ROOM,
            w.learned.address, w.keys.address, w.decay.address, w.desks.address, 0, 0, 1e-6,
        )  # fmt: skip
        tokens = last - first
        nothing = (0,) * 5
        run(gated_delta.delta_factors["float32"], scales, q, k, *nothing, tokens, shape, reading=(q, k, shape))
        run(
            gated_delta.gated_delta, out, q, k, v, decay, scales, state, batch.record, shape,
            touching=(w.learned, w.keys, w.decay), reading=(self.q, self.k, self.v, gates, shape),
            multiprocessors=multiprocessors,
        )  # fmt: skip
        return out


@pytest.mark.parametrize("dtype", FLOATS)
def test_gates(dtype):
    rng, tokens, heads = random.Random(3), 7, 37
    whole = some(rng, tokens, 2 * heads + 3, spread=4.0)
    b, a = whole[:, :heads], whole[:, heads + 2 : 2 * heads + 2]
    rate, bias = some(rng, heads).astype(dtype), some(rng, heads).astype(dtype)
    beta, decay = Tensor.zeros((tokens, heads)), Tensor.zeros((tokens, heads))
    apart = 2 * heads + 3
    values = beta, decay, b, a, rate, bias, tokens, heads, apart, apart
    run(gated_delta.delta_gates[dtype], *values, reading=(whole, rate, bias))
    wanted = ops.delta_gates(b, a, rate, bias)
    for found, right in zip((beta, decay), wanted, strict=True):
        assert relative_error(found, flat(right)) < 1e-6


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=4)
@given(tokens=st.integers(1, 6), key_heads=st.integers(1, 5), group=st.integers(1, 8), dim=st.integers(1, 70))
def test_gates_and_scales_at_once(dtype, tokens, key_heads, group, dim):
    rng, heads = random.Random(tokens + dim), key_heads * group
    q, k, whole = some(rng, tokens, key_heads, dim), some(rng, tokens, key_heads, dim), some(rng, tokens, 2 * heads + 3)
    b, a = whole[:, 1 : 1 + heads], whole[:, 3 + heads :]
    rate, bias = some(rng, heads).astype(dtype), some(rng, heads).astype(dtype)
    made, scales = Tensor.full((2, tokens, heads), 7.0), Tensor.full((tokens, key_heads, 2), 7.0)
    near, apart = key_heads * dim, 2 * heads + 3
    sizes_ = heads, key_heads, dim, 1, heads, near, dim, near, dim, heads, 1, 4 * tokens * heads
    shape = held_record(*sizes_, 0, 0, 0, 0, 0, apart, apart, 1e-6)
    values = scales, q, k, made[0], b, a, rate, bias, tokens, shape
    run(gated_delta.delta_factors[dtype], *values, reading=(q, k, whole, rate, bias, shape), multiprocessors=1)
    beta, decay = ops.delta_gates(b, a, rate, bias)
    assert relative_error(made[0], flat(decay)) < 1e-6
    assert relative_error(made[1], flat(beta)) < 1e-6
    lengths = [[sum(v * v for v in head) + 1e-6 for token in x.tolist() for head in token] for x in (q, k)]
    wanted = [1 / root for pair in zip(*lengths, strict=True) for root in ((pair[0] * dim) ** 0.5, pair[1] ** 0.5)]
    assert relative_error(scales, wanted) < 1e-6


@settings(max_examples=6)
@given(
    key_heads=st.integers(1, 2), group=st.integers(1, 2), dim=st.sampled_from([1, 16, 40, 128, 150, 256]),
    value_dim=st.integers(1, 70),
)  # fmt: skip
def test_beside_the_cpu(key_heads, group, dim, value_dim):
    delta = Delta(9, key_heads, group, dim, value_dim)
    batch = batch_of((4, 3, 2, None, False), (0, 5, 1, None, False), (2, 0, 0, None, False), (3, 6, 3, None, True))
    state, wanted = delta.state.clone(), delta.state.clone()
    found = delta.on_gpu(batch, state, 0, 9, multiprocessors=2)
    kept = [x.clone() for x in (delta.window.learned, delta.window.keys, delta.window.decay)]
    right = ops.gated_delta(delta.q, delta.k, delta.v, delta.decay, delta.beta, wanted, batch, window=delta.window)
    assert relative_error(found, flat(right)) < 2e-6
    assert relative_error(state, flat(wanted)) < 2e-6
    for a, b in zip(kept, (delta.window.learned, delta.window.keys, delta.window.decay), strict=True):
        assert relative_error(a, flat(b)) < 2e-6


def test_cut_anywhere_alone_and_committed_bits_are_the_same():
    delta = Delta(11, 1, 2, 128, 48)
    whole = delta.state.clone()
    out = delta.on_gpu(batch_of((11, 7, 1, None, False)), whole, 0, 11)
    cut = delta.state.clone()
    for first, last in ((0, 1), (1, 6)):
        part = delta.on_gpu(batch_of((last - first, 7 + first, 1, None, False)), cut, first, last)
        assert bytes_of(part) == bytes_of(out[first:last].clone())
    # the rest: two tokens as one sequence, whose state another one takes on
    more = cut.clone()
    batch = batch_of((2, 13, 1, None, False), (3, 15, 3, 1, False))
    part = delta.on_gpu(batch, more, 6, 11, multiprocessors=3)
    assert bytes_of(part) == bytes_of(out[6:11].clone())
    assert bytes_of(more[3].clone()) == bytes_of(whole[1].clone())
    # and as tentative tokens, which leave the state as it is until they are committed
    kept = cut.clone()
    part = delta.on_gpu(batch_of((5, 13, 1, None, True)), kept, 6, 11)
    assert bytes_of(part) == bytes_of(out[6:11].clone())
    assert bytes_of(kept) == bytes_of(cut)
    w, (_, heads, slices, dim, _) = delta.window, kept.shape
    shape = held_record(1, heads, 1, slices, dim, ROOM, 0, 0, 0, 0)
    own = kept[1]
    run(commit.commit_delta, own, w.learned, w.keys, w.decay, 0, 5, 0, shape, reading=(w.learned, w.keys, w.decay))
    assert bytes_of(own.clone()) == bytes_of(whole[1].clone())


@settings(max_examples=6)
@given(
    layers=st.integers(1, 2), heads=st.sampled_from([1, 2, 4]), dim=st.integers(1, 9), fresh=st.booleans(),
    first=st.integers(0, 2), tokens=st.integers(0, 3),
)  # fmt: skip
def test_commit_delta(layers, heads, dim, fresh, first, tokens):
    rng, key_heads = random.Random(dim), max(1, heads // 2)
    state = some(rng, layers, heads, 2, dim, sizes.SLICE)
    learned = some(rng, layers, heads, 2, ROOM, sizes.SLICE)
    keys, decay = some(rng, layers, key_heads, ROOM, dim), some(rng, layers, heads, ROOM)
    wanted = state.clone()
    ops.commit_delta(wanted, learned, keys, decay, first, tokens, fresh=fresh)
    apart = [x.strides[0] for x in (state, learned, keys, decay)]
    shape = held_record(layers, heads, key_heads, 2, dim, ROOM, *apart)
    values = state, learned, keys, decay, first, tokens, int(fresh), shape
    if tokens:  # the operation calls no kernel for none
        run(commit.commit_delta, *values, reading=(learned, keys, decay, shape))
    assert bytes_of(state) == bytes_of(wanted)


@settings(max_examples=6)
@given(
    layers=st.integers(1, 2), before=st.integers(1, 4), channels=st.integers(1, 70), fresh=st.booleans(),
    tokens=st.integers(1, 6),
)  # fmt: skip
def test_commit_inputs(layers, before, channels, fresh, tokens):
    rng = random.Random(channels)
    state, window = some(rng, layers, before, channels), some(rng, layers, before + tokens, channels)
    wanted = state.clone()
    ops.commit_inputs(wanted, window, 0, tokens, fresh=fresh)
    sizes_ = layers, before, channels, state.strides[0], window.strides[0]
    at = window[:, before:]
    run(commit.commit_inputs, state, at, tokens, int(fresh), *sizes_, reading=(window,))
    assert bytes_of(state) == bytes_of(wanted)


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=5)
@given(width=st.integers(1, 8), channels=st.integers(1, 150), borrowed=st.booleans(), long=st.integers(1, 40))
def test_causal_conv(dtype, width, channels, borrowed, long):
    rng = random.Random(channels)
    parts = [
        (long, 5, 2, None, False), (0, 3, 0, None, False), (2, 0, 1, None, False),
        (3, 9, 3, 2 if borrowed else None, False), (4, 6, 4, None, True),
    ]  # fmt: skip
    batch, tokens = batch_of(*parts), long + 9
    x, weight = some(rng, tokens, channels + 3), some(rng, width, channels).astype(dtype)
    state, wanted_state = (some(random.Random(1), 5, width - 1, channels) for _ in range(2))
    inputs = Tensor.zeros((width - 1 + ROOM, channels))
    window = Window(inputs.clone(), *[Tensor.zeros((1,))] * 4)
    wanted = ops.causal_conv(x[:, :channels], weight, wanted_state, batch, window=window)
    out = Tensor.full((tokens, channels), 7.0)
    # the channels come in three parts, of which the last has two heads if it has an even width
    cuts, fields, apart = sorted((channels // 3, 2 * channels // 3, 0, channels)), list[int](), channels + 3
    for first, last in pairwise(cuts):
        dim = last - first if first % 2 or (last - first) % 2 else (last - first) // 2
        fields += [x[:, first:].address if first < channels else 0, dim, last - first, apart, dim]
    values = out, held_record(*fields), weight, state, inputs, batch.record, channels, width, channels
    run(causal_conv.causal_conv[dtype], *values, reading=(x, weight, values[1]), multiprocessors=2)
    assert relative_error(out, flat(wanted)) < 1e-6
    assert bytes_of(state) == bytes_of(wanted_state)
    assert bytes_of(inputs) == bytes_of(window.inputs)
    alone, first = Tensor.full((1, channels), 7.0), batch_of((1, 0, 1, None, False))
    one = held_record(x[long:].address, channels, channels, apart, channels)
    values = alone, one, weight, state, 0, first.record, channels, width, channels
    run(causal_conv.causal_conv[dtype], *values, reading=(x, weight, one))
    assert bytes_of(alone) == bytes_of(out[long : long + 1].clone())
