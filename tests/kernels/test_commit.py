"""Tokens that may not stand leave states as they are; those that are committed leave the states they would have."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slices import batch_of
from test_gated_delta import as_matrices, as_slices, heads, inputs, largest

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.ops.gated_delta import state_shape
from pio.ops.window import desks_shape, window_shapes
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import commit as reference
from pio.testing.strategies import FLOATS, sizes, tensors, views

THREADS = st.sampled_from((1, 2, 3))


def window_of(tokens, state, *, width=1, channels=1, key_heads=1):
    """A window with the rests of an earlier step, for slots of such states; only rows before any token are zeros."""
    states = (width - 1, channels), state[1:]
    made = {n: Tensor.full(shape, math.nan) for n, shape in window_shapes(tokens, states, key_heads).items()}
    made["inputs"][: width - 1].fill_(0.0)
    return ops.Window(desks=Tensor.full(desks_shape(states, Device("cpu", 3)), math.nan), **made)


def of_layers(layers, gap):
    """Tensors of one shape as one of layers with so much memory between them, and all of that memory."""
    size = layers[0].size
    memory = Tensor.full((len(layers), size + gap), 7.0)
    for own, layer in zip(memory, layers, strict=True):
        own[:size].copy_(layer.reshape(-1))
    strides = (size + gap, *layers[0].strides)
    return Tensor(memory.storage, memory.address, memory.dtype, (len(layers), *layers[0].shape), strides), memory


def one(x):
    """A layer's tensor as that of all layers."""
    return x.reshape(1, *x.shape)


@given(data=st.data(), shape=heads(40), layers=st.integers(1, 3), tokens=st.integers(0, 6), threads=THREADS)
def test_commit_delta(data, shape, layers, tokens, threads):
    """The first tokens from anywhere in a window that holds more, in layers with memory of others between them."""
    key_heads, count, dim, value_dim = shape
    first, fresh, gap = data.draw(st.integers(0, 3)), data.draw(st.booleans()), data.draw(st.integers(0, 3))
    room = first + tokens + 1
    start = [data.draw(tensors((count, dim, value_dim))).tolist() for _ in range(layers)]
    learned = [data.draw(tensors((count, room, value_dim))).tolist() for _ in range(layers)]
    keys = [data.draw(tensors((key_heads, room, dim))) for _ in range(layers)]
    decay = [[[1 / (2 + t + h + i) for t in range(room)] for h in range(count)] for i in range(layers)]
    state, memory = of_layers([Tensor.from_list(as_slices(s)) for s in start], gap)
    kept = [Tensor.from_list(as_slices(x)) for x in learned]  # tokens are cut as the rows of a state are
    window = (of_layers(x, gap)[0] for x in (kept, keys, list(map(Tensor.from_list, decay))))
    ops.commit_delta(state.to(Device("cpu", threads)), *window, first, tokens, fresh=fresh)
    ones = slice(first, first + tokens)
    for i in range(layers):
        found = as_matrices(state[i].tolist(), value_dim)
        for h in range(count):
            before = [[0.0] * value_dim] * dim if fresh and tokens else start[i][h]
            by = keys[i][h * key_heads // count].tolist()
            wanted = reference.commit_delta(before, learned[i][h][ones], by[ones], decay[i][h][ones])
            slack = 1e-6 * (1 + tokens) * (1e-3 + largest(start[i]) + largest(learned[i]) * largest(keys[i].tolist()))
            assert_close(found[h], wanted, absolute=slack)
        assert memory[i, state[i].size :].tolist() == [7.0] * gap, "memory between layers was written"


@given(data=st.data(), shape=sizes((1, 8), (1, 150)), tokens=st.integers(0, 9), threads=THREADS)
def test_commit_inputs(data, shape, tokens, threads):
    width, channels = shape
    layers = data.draw(st.integers(1, 3))
    first, fresh, gap = data.draw(st.integers(0, 3)), data.draw(st.booleans()), data.draw(st.integers(0, 3))
    room = width - 1 + first + tokens + 1
    start = [data.draw(tensors((width - 1, channels))) for _ in range(layers)]
    kept = [data.draw(tensors((room, channels))) for _ in range(layers)]
    state, memory = of_layers(start, gap)
    ops.commit_inputs(state.to(Device("cpu", threads)), of_layers(kept, gap)[0], first, tokens, fresh=fresh)
    begin = width - 1 + first
    for i in range(layers):
        before = [[0.0] * channels] * (width - 1) if fresh and tokens else start[i].tolist()
        assert state[i].tolist() == reference.commit_inputs(before, kept[i][begin : begin + tokens].tolist())
        assert memory[i, state[i].size :].tolist() == [7.0] * gap, "memory between layers was written"


@st.composite
def mixtures(draw):
    """Sequences of one step: whether each is tentative, how many tokens came before and come now, and what stands."""
    count = draw(st.integers(1, 4))
    slots = draw(st.permutations(range(count)))
    found = []
    for slot in slots:
        new, past = draw(st.integers(1, 6)), draw(st.sampled_from((0, 5)))
        found.append((slot, past, new, draw(st.booleans()), draw(st.integers(0, new))))
    return found


def kept_from(batch, slot):
    return next(kept for kept in batch.tentative if kept.slot == slot)


@given(data=st.data(), shape=heads(40), mixture=mixtures(), threads=THREADS)
def test_what_stands_leaves_the_states_of_one_token_after_another(data, shape, mixture, threads):
    """Outputs, states behind the step and states behind commits, to the bit, beside sequences of all kinds."""
    key_heads, count, dim, value_dim = shape
    drawn = [data.draw(inputs(new, shape)) for _, _, new, _, _ in mixture]
    start = data.draw(tensors(state_shape(len(mixture), count, dim, value_dim)))
    pad = Tensor.from_list(as_slices([[[1.0] * value_dim] * dim] * count))
    for slot in start:  # what lies behind the last column is zero
        ops.mul(slot, pad, out=slot)
    alone, states, outs = [], [], []
    for given_, (slot, past, new, tentative, stand) in zip(drawn, mixture, strict=True):
        whole, own = start.clone(), start.clone()
        outs.append(bits(ops.gated_delta(*given_, whole, batch_of((slot, past, new)))))
        alone.append(bits(whole[slot]))
        for t in range(stand if tentative else new):
            ops.gated_delta(*(x[t : t + 1] for x in given_), own, batch_of((slot, past + t, 1)))
        states.append(bits(own[slot]))
    rows = sum(new for _, _, new, tentative, _ in mixture if tentative)
    window = window_of(rows + data.draw(st.integers(0, 2)), start.shape, key_heads=key_heads)
    state, batch = start.clone(), batch_of(*(sequence[:4] for sequence in mixture))
    assert batch.tentative_tokens == rows
    joined = [Tensor.from_list([row for x in drawn for row in x[i].tolist()]) for i in range(5)]
    out = joined[2] if data.draw(st.booleans()) else None
    first = joined[0].to(Device("cpu", threads))
    done, at = ops.gated_delta(first, *joined[1:], state, batch, out=out, window=window), 0
    for i, (slot, _, new, tentative, _) in enumerate(mixture):
        assert bits(done[at : at + new]) == outs[i]
        assert bits(state[slot]) == (bits(start[slot]) if tentative else alone[i])
        at += new
    whole = one(state).to(Device("cpu", threads))
    for slot, _, _, tentative, stand in data.draw(st.permutations(mixture)):
        if tentative:
            kept = kept_from(batch, slot)
            of_all = one(window.learned), one(window.keys), one(window.decay)
            ops.commit_delta(whole[:, slot], *of_all, kept.first, stand, fresh=kept.fresh)
    for i, (slot, _, _, _, stand) in enumerate(mixture):
        untouched = mixture[i][3] and not stand
        assert bits(state[slot]) == (bits(start[slot]) if untouched else states[i])


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((1, 8), (1, 200)), mixture=mixtures(), threads=THREADS)
def test_inputs_that_stand_are_those_of_one_token_after_another(data, dtype, shape, mixture, threads):
    width, channels = shape
    weight, drawn = data.draw(tensors(shape, dtype)), [data.draw(tensors((m[2], channels))) for m in mixture]
    start = data.draw(tensors((len(mixture), width - 1, channels)))
    rows = sum(new for _, _, new, tentative, _ in mixture if tentative)
    window = window_of(rows, state_shape(1, 1, 1, 1), width=width, channels=channels)
    state, batch = start.clone(), batch_of(*(sequence[:4] for sequence in mixture))
    x = Tensor.from_list([row for own in drawn for row in own.tolist()]).reshape(-1, channels)
    wide, out = data.draw(views(x)), data.draw(views(Tensor.zeros(x.shape)))
    ops.causal_conv(wide.to(Device("cpu", threads)), weight, state, batch, out=out, window=window)
    at = 0
    for own, (slot, past, new, tentative, stand) in zip(drawn, mixture, strict=True):
        whole, steps = start.clone(), start.clone()
        assert bits(out[at : at + new]) == bits(ops.causal_conv(own, weight, whole, batch_of((slot, past, new))))
        at += new
        if not tentative:
            assert bits(state[slot]) == bits(whole[slot])
            continue
        assert bits(state[slot]) == bits(start[slot])
        for t in range(stand):
            ops.causal_conv(own[t : t + 1], weight, steps, batch_of((slot, past + t, 1)))
        kept = kept_from(batch, slot)
        ops.commit_inputs(one(state)[:, slot], one(window.inputs), kept.first, stand, fresh=kept.fresh)
        assert bits(state[slot]) == bits(steps[slot])


def test_what_is_not_finite_is_committed_too():
    k, ones = Tensor.full((3, 1, 3), 1.0), Tensor.full((3, 1), 0.5)
    v = Tensor.from_list([[[1.0] * 34], [[1.0] * 33 + [math.inf]], [[math.nan] + [1.0] * 33]])
    states = [Tensor.full(state_shape(1, 1, 3, 34), 0.25) for _ in range(2)]
    for state in states:
        state[0, 0, 1, :, 2:].fill_(0.0)
    ops.gated_delta(k, k, v, ones, ones, states[0], batch_of((0, 1, 3)))
    window = window_of(3, states[1].shape)
    ops.gated_delta(k, k, v, ones, ones, states[1], batch_of((0, 1, 3, True)), window=window)
    ops.commit_delta(one(states[1])[:, 0], one(window.learned), one(window.keys), one(window.decay), 0, 3)
    assert bits(states[1]) == bits(states[0])
    assert sum(not math.isfinite(x) for x in states[0].reshape(-1).tolist()) == 6


def delta_arguments(rows=2, tokens=2):
    one_ = {"q": (tokens, 1, 3), "k": (tokens, 1, 3), "v": (tokens, 1, 2), "decay": (tokens, 1), "beta": (tokens, 1)}
    state = state_shape(1, 1, 3, 2)
    return {n: Tensor.zeros(s) for n, s in one_.items()} | {
        "state": Tensor.zeros(state),
        "window": window_of(rows, state),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": None}, "the batch has tentative sequences, whose states must stay as they are; give window="),
        ({"window": window_of(1, state_shape(1, 1, 3, 2))}, "2 tentative tokens, the window keeps 1; let fewer"),
        ({"window": window_of(2, state_shape(1, 1, 4, 2))}, r"window\.keys has shape .*, expected \(1, 2, 3\)"),
        ({"window": window_of(2, state_shape(1, 1, 3, 40))}, r"window\.learned has shape .*, expected \(1, 1, 2, 32\)"),
    ],
)
def test_gated_delta_refuses_a_window_that_does_not_fit(change, message):
    with pytest.raises(TensorError, match=f"^gated_delta: .*{message}"):
        ops.gated_delta(**delta_arguments() | change, batch=batch_of((0, 1, 2, True)))


def test_gated_delta_refuses_too_few_desks_for_its_threads():
    n = 1 << 15
    state = state_shape(1, 1, 3, 2)
    window = replace(window_of(n, state), desks=Tensor.zeros((1, *state[-2:])))
    given_ = delta_arguments(n, n) | {"window": window}
    given_["q"] = given_["q"].to(Device("cpu", 2))
    with pytest.raises(TensorError, match=r"window\.desks has 1 slices, expected at least 32"):
        ops.gated_delta(**given_, batch=batch_of((0, 1, 1, True)))


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (None, "the batch has tentative sequences"),
        (window_of(1, state_shape(1, 1, 1, 1), width=3, channels=5), "2 tentative tokens, the window keeps 1"),
        (
            window_of(2, state_shape(1, 1, 1, 1), width=3, channels=6),
            r"window\.inputs has shape .*, expected \(any, 5\)",
        ),
    ],
)
def test_causal_conv_refuses_a_window_that_does_not_fit(window, message):
    x, weight, state = Tensor.zeros((2, 5)), Tensor.zeros((3, 5)), Tensor.zeros((1, 2, 5))
    with pytest.raises(TensorError, match=f"^causal_conv: .*{message}"):
        ops.causal_conv(x, weight, state, batch_of((0, 1, 2, True)), window=window)


def test_a_batch_says_where_its_tentative_tokens_are_kept():
    batch = batch_of((3, 0, 2, True), (1, 4, 5), (2, 7, 4, True), (0, 1, 1))
    assert batch.rows.tolist() == [0, -1, 2, -1]
    assert batch.tentative == [(3, 0, 2, True), (2, 2, 4, False)] and batch.tentative_tokens == 6
    batch.begin()
    assert (batch.tentative, batch.tentative_tokens) == ([], 0)
    batch.append(1, 4, [], 2)
    assert batch.rows[0].item() == -1


def commit_arguments():
    """Two layers, a window of six tokens, two key heads, four value heads."""
    return {
        "state": Tensor.zeros((2, *state_shape(1, 4, 5, 3)[1:])),
        "learned": Tensor.zeros((2, 4, 1, 6, 32)),
        "keys": Tensor.zeros((2, 2, 6, 5)),
        "decay": Tensor.zeros((2, 4, 6)),
        "first": 1,
        "tokens": 5,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({name: [1.0]}, f"{name} is a list, expected a pio.Tensor")
            for name in ("state", "learned", "keys", "decay")
        ),
        ({"state": Tensor.zeros((2, 5))}, r"state has shape \(2, 5\) and keys"),
        ({"keys": Tensor.zeros((2, 3, 6, 5))}, "4 value heads do not divide among 3 key heads"),
        ({"learned": Tensor.zeros((2, 4, 2, 6, 32))}, r"learned has shape .*, expected \(2, 4, 1, 6, 32\)"),
        ({"decay": Tensor.zeros((2, 4, 12))[:, :, ::2]}, r"decay has strides .*expected contiguous"),
        ({"tokens": 6}, "tokens 1 to 7 of a window, expected from 0 to at most 6"),
        ({"first": -1}, "tokens -1 to 4 of a window"),
        ({"tokens": -1}, "tokens 1 to 0 of a window"),
        ({"state": Tensor.from_buffer(bytes(5120), "float32", (2, 4, 1, 5, 32))[:1]}, "learned has shape"),
    ],
)
def test_commit_delta_refuses_what_does_not_fit(change, message):
    with pytest.raises(TensorError, match=f"^commit_delta: .*{message}"):
        ops.commit_delta(**commit_arguments() | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({name: [1.0]}, f"{name} is a list, expected a pio.Tensor") for name in ("state", "window")),
        ({"state": Tensor.zeros((2, 5))}, r"state has shape \(2, 5\) and window"),
        ({"window": Tensor.zeros((3, 5, 5))}, r"window has shape .*, expected \(2, 5, 5\)"),
        ({"window": Tensor.zeros((2, 5, 6))}, r"window has shape .*, expected \(2, 5, 5\)"),
        ({"tokens": 3}, "tokens 1 to 4 of a window, expected from 0 to at most 3"),
        ({"state": Tensor.from_buffer(bytes(80), "float32", (2, 2, 5))}, "state is read-only"),
    ],
)
def test_commit_inputs_refuses_what_does_not_fit(change, message):
    given_ = {"state": Tensor.zeros((2, 2, 5)), "window": Tensor.zeros((2, 5, 5)), "first": 1, "tokens": 2}
    with pytest.raises(TensorError, match=f"^commit_inputs: .*{message}"):
        ops.commit_inputs(**given_ | change)


def test_states_do_not_lie_in_windows():
    memory = Tensor.zeros((1, 5, 1, 1, 32))
    shapes = {"learned": (1, 1, 1, 2, 32), "keys": (1, 1, 2, 5), "decay": (1, 1, 2)}
    for name in shapes:
        window = {n: Tensor.zeros(s) for n, s in shapes.items()}
        window[name] = memory.reshape(-1)[: math.prod(shapes[name])].reshape(shapes[name])
        with pytest.raises(TensorError, match=f"commit_delta: state shares memory with {name}"):
            ops.commit_delta(memory.reshape(1, 1, 1, 5, 32), **window, first=0, tokens=1)
    with pytest.raises(TensorError, match="commit_inputs: state shares memory with window"):
        x = Tensor.zeros((1, 4, 5))
        ops.commit_inputs(x[:, :2], x, 0, 1)
