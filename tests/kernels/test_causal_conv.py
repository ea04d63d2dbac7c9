import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from slices import batch_of

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.causal_conv import causal_conv
from pio.testing.strategies import FLOATS, sizes, tensors, views

THREADS = st.sampled_from((1, 2, 3))


def magnitude(*nested):
    return max((abs(v) for rows in nested for row in rows for v in row), default=0.0)


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((1, 9), (1, 8), (1, 150)), fresh=st.booleans(), threads=THREADS)
@example(data=None, shape=(2, 1, 16), fresh=False, threads=1)
def test_causal_conv(data, dtype, shape, fresh, threads):
    tokens, width, channels = shape
    if data is None:
        x, weight, state = Tensor.full((2, 16), 2.0), Tensor.full((1, 16), 0.5, dtype), Tensor.zeros((3, 0, 16))
    else:
        x, weight = data.draw(tensors((tokens, channels))), data.draw(tensors((width, channels), dtype))
        state = data.draw(tensors((3, width - 1, channels)))
    before, others = state[1].tolist(), bits(state[0]) + bits(state[2])
    found = ops.causal_conv(x.to(Device("cpu", threads)), weight, state, batch_of((1, 0 if fresh else 4, tokens)))
    if fresh:
        before = [[0.0] * channels for _ in before]
    expected, after = causal_conv(x.tolist(), weight.tolist(), before)
    slack = 2e-6 * width * (1.0 + magnitude(x.tolist(), before) * magnitude(weight.tolist()))
    assert_close(found, expected, absolute=slack)
    assert state[1].tolist() == after
    assert bits(state[0]) + bits(state[2]) == others, "a slot of no sequence was touched"


@given(data=st.data(), shape=sizes((1, 8), (1, 200)), threads=THREADS)
def test_bits_do_not_depend_on_batch_chunks_or_threads(data, shape, threads):
    width, channels = shape
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    weight = data.draw(tensors((width, channels)))
    drawn = [data.draw(tensors((n, channels))) for n in lengths]
    whole, states = [], []
    for x, n in zip(drawn, lengths, strict=True):
        state = Tensor.full((1, width - 1, channels), math.nan)
        whole.append(ops.causal_conv(x.to(Device("cpu", 1)), weight, state, batch_of((0, 0, n))))
        states.append(state)
    cuts = [data.draw(st.integers(0, n)) for n in lengths]
    slots = data.draw(st.permutations(range(len(lengths))))
    state = Tensor.full((len(lengths), width - 1, channels), math.nan)
    found = [[] for _ in lengths]
    for pick in (lambda c, n: (0, c), lambda c, n: (c, n)):
        ranges = [(i, *pick(c, n)) for i, (c, n) in enumerate(zip(cuts, lengths, strict=True))]
        used = [(i, a, b) for i, a, b in ranges if b > a]
        if not used:
            continue
        x = Tensor.from_list([row for i, a, b in used for row in drawn[i][a:b].tolist()]).reshape(-1, channels)
        wide, out = data.draw(views(x)), data.draw(views(Tensor.zeros(x.shape)))
        batch = batch_of(*((slots[i], a, b - a) for i, a, b in used))
        assert ops.causal_conv(wide.to(Device("cpu", threads)), weight, state, batch, out=out) is out
        at = 0
        for i, a, b in used:
            found[i].append(bits(out[at : at + b - a]))
            at += b - a
    for i in range(len(lengths)):
        assert b"".join(found[i]) == bits(whole[i])
        assert bits(state[slots[i]]) == bits(states[i][0])


@given(
    data=st.data(),
    width=st.integers(1, 8),
    shapes=st.lists(sizes((1, 4), (1, 150)), min_size=1, max_size=3),
    threads=THREADS,
)
def test_channels_may_be_heads_of_several_tensors(data, width, shapes, threads):
    tokens, group = 7, sum(dim for _, dim in shapes) + 3
    wide = data.draw(tensors((tokens, max(heads for heads, _ in shapes), group))).to(Device("cpu", threads))
    parts, first = [], 1
    for heads, dim in shapes:  # as in a projection that has a head's query, key and values side by side
        parts.append(wide[:, :heads, first : first + dim])
        first += dim
    rows = [[v for part in parts for head in part[t].tolist() for v in head] for t in range(tokens)]
    x, batch = Tensor.from_list(rows), batch_of((1, 3, 4), (0, 0, 2), (2, 5, 1))
    weight, state = data.draw(tensors((width, x.shape[1]))), data.draw(tensors((3, width - 1, x.shape[1])))
    before = state.clone()
    expected = bits(ops.causal_conv(x, weight, before, batch))
    assert bits(ops.causal_conv(parts, weight, state, batch)) == expected
    assert bits(state) == bits(before)


@given(data=st.data(), shape=sizes((1, 8), (1, 200)), past=st.integers(0, 1), threads=THREADS)
def test_a_sequence_that_is_cut_within_a_batch_leaves_its_state_there(data, shape, past, threads):
    width, channels = shape
    ends = sorted(data.draw(st.sets(st.integers(1, 12), min_size=2, max_size=4)))
    x, weight = data.draw(tensors((ends[-1], channels))), data.draw(tensors((width, channels)))
    start, expected = data.draw(tensors((1, width - 1, channels))), []
    for end in ends:
        state = start.clone()
        out = ops.causal_conv(x[:end], weight, state, batch_of((0, past, end)))
        expected.append(bits(state))
    slots = data.draw(st.permutations(range(len(ends))))
    states = Tensor.full((len(ends), width - 1, channels), math.nan)
    states[slots[0]].copy_(start[0])
    cuts = [(slots[0], past, ends[0])]
    cuts.extend((slots[i], past + ends[i - 1], ends[i] - ends[i - 1], False, slots[i - 1]) for i in range(1, len(ends)))
    found = ops.causal_conv(x.to(Device("cpu", threads)), weight, states, batch_of(*cuts))
    assert bits(found) == bits(out)
    assert [bits(states[slot]) for slot in slots] == expected


def test_what_is_not_finite_stays_in_its_channel_and_leaves_with_its_token():
    x, weight = Tensor.full((6, 18), 1.0), Tensor.full((3, 18), 1.0)
    x[1:2, 17:].copy_(Tensor.from_list([[math.nan]]))
    found = ops.causal_conv(x.to(Device("cpu", 2)), weight, Tensor.zeros((1, 2, 18)), batch_of((0, 0, 6))).tolist()
    assert [(t, c) for t, row in enumerate(found) for c, v in enumerate(row) if math.isnan(v)] == [
        (1, 17),
        (2, 17),
        (3, 17),
    ]


def test_no_tokens_change_nothing():
    state = Tensor.full((1, 2, 5), 3.0)
    assert ops.causal_conv(Tensor.zeros((0, 5)), Tensor.zeros((3, 5)), state, batch_of((0, 0, 0))).shape == (0, 5)
    x = Tensor.full((2, 5), 1.0)
    state = Tensor.full((2, 2, 5), 3.0)
    ops.causal_conv(x, Tensor.full((3, 5), 1.0), state, batch_of((0, 0, 0), (1, 0, 2)))
    assert state.tolist() == [[[3.0] * 5] * 2, [[1.0] * 5] * 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": 1.0}, "x is a float, expected a pio.Tensor"),
        ({"x": [1.0]}, r"x\[0\] is a float, expected a pio.Tensor"),
        (
            {"x": [Tensor.zeros((2, 1, 5)), Tensor.zeros((3, 1, 5))]},
            r"x\[1\] has shape \(3, 1, 5\), expected \(2, heads",
        ),
        ({"x": [Tensor.zeros((2, 5))]}, r"x\[0\] has shape \(2, 5\), expected \(2, heads"),
        ({"weight": [1.0]}, "weight is a list, expected a pio.Tensor"),
        ({"state": [1.0]}, "state is a list, expected a pio.Tensor"),
        ({"out": [1.0]}, "out is a list, expected a pio.Tensor"),
        ({"x": Tensor.zeros((2, 1, 5))}, r"x has shape \(2, 1, 5\), expected \(tokens, channels\)"),
        ({"x": Tensor.zeros((2, 5), "float16")}, "x is float16, expected float32"),
        ({"x": Tensor.zeros((2, 10))[:, ::2]}, "contiguous tokens"),
        ({"weight": Tensor.zeros((5, 1, 3))}, r"weight has shape \(5, 1, 3\), expected \(any, 5\)"),
        ({"weight": Tensor.zeros((3, 5), "int32")}, "weight is int32, expected one of float32"),
        ({"weight": Tensor.zeros((9, 5))}, "width from 1 to 8; transpose what a checkpoint holds"),
        ({"state": Tensor.zeros((1, 3, 5))}, r"state has shape \(1, 3, 5\), expected \(any, 2, 5\)"),
        ({"state": Tensor.from_buffer(bytes(40), "float32", (1, 2, 5))}, "state is read-only"),
        ({"out": Tensor.from_buffer(bytes(40), "float32", (2, 5))}, "out is read-only"),
        ({"out": Tensor.zeros((3, 5))}, r"out has shape \(3, 5\), expected \(2, 5\)"),
    ],
)
def test_causal_conv_refuses_what_does_not_fit(change, message):
    given = {"x": Tensor.zeros((2, 5)), "weight": Tensor.zeros((3, 5)), "state": Tensor.zeros((1, 2, 5))}
    with pytest.raises(TensorError, match=f"^causal_conv: .*{message}"):
        ops.causal_conv(**given | change, batch=batch_of((0, 0, 2)))


def test_results_do_not_lie_in_inputs():
    x, weight, state = Tensor.zeros((2, 5)), Tensor.zeros((3, 5)), Tensor.zeros((1, 2, 5))
    batch = batch_of((0, 0, 2))
    with pytest.raises(TensorError, match="out shares memory with x"):
        ops.causal_conv(x, weight, state, batch, out=x)
    with pytest.raises(TensorError, match="out shares memory with state"):
        ops.causal_conv(x, weight, state, batch, out=state[0])
    with pytest.raises(TensorError, match="state shares memory with x"):
        ops.causal_conv(x, weight, x.reshape(1, 2, 5), batch)
