import math
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from slices import batch_of

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.ops.gated_delta import state_shape
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import gated_delta as reference
from pio.testing.strategies import FLOATS, numbers, sizes, tensors

THREADS = st.sampled_from((1, 2, 3))
COLUMNS = state_shape(1, 1, 1, 1)[-1]
EDGES = [0.0, -0.0, 1e-20, 20.0, -20.0, 87.0, -87.0, 89.0, -89.0, 700.0, -700.0, 3e38, -3e38]


def as_slices(matrices):
    """(heads, dim, value_dim) as a slot of a state holds it: slices of columns, zeros behind the last."""
    out = []
    for matrix in matrices:
        rows = [row + [0.0] * (-len(row) % COLUMNS) for row in matrix]
        out.append([[row[c : c + COLUMNS] for row in rows] for c in range(0, len(rows[0]), COLUMNS)])
    return out


def as_matrices(slot, value_dim):
    """The inverse of ``as_slices``; what lies behind the last column must be zero."""
    out = []
    for slices in slot:
        rows = [list(chain(*parts)) for parts in zip(*slices, strict=True)]
        assert not any(x for row in rows for x in row[value_dim:])
        out.append([row[:value_dim] for row in rows])
    return out


@st.composite
def heads(draw, widest=60):
    """Key heads, value heads, and the widths of keys and values, pairwise different."""
    key_heads, group, dim, value_dim = draw(sizes((1, 3), (1, 3), (1, widest), (1, 2 * widest)))
    return key_heads, key_heads * group, dim, value_dim


@st.composite
def inputs(draw, tokens, shape):
    """Queries, keys and values of any size, and gates from 0 to 1."""
    key_heads, count, dim, value_dim = shape
    q, k = (draw(tensors((tokens, key_heads, dim))) for _ in range(2))
    v = draw(tensors((tokens, count, value_dim)))
    gates = [
        Tensor.from_list([1 / (1 + math.exp(-x)) for x in draw(numbers(tokens * count))]).reshape(tokens, count)
        for _ in range(2)
    ]
    return [q, k, v, *gates]


def largest(*nested):
    return max((largest(*v) if isinstance(v, list) else abs(v) for v in nested), default=0.0)


@given(data=st.data(), tokens=st.integers(1, 9), shape=heads(), fresh=st.booleans(), threads=THREADS)
def test_gated_delta(data, tokens, shape, fresh, threads):
    _, count, dim, value_dim = shape
    given_ = data.draw(inputs(tokens, shape))
    start = data.draw(tensors((count, dim, value_dim))).tolist()
    states = Tensor.from_list([as_slices(start)] * 3)
    others = bits(states[0]) + bits(states[2])
    batch = batch_of((1, 0 if fresh else 5, tokens))
    found = ops.gated_delta(given_[0].to(Device("cpu", threads)), *given_[1:], states, batch)
    if fresh:
        start = [[[0.0] * value_dim for _ in range(dim)] for _ in range(count)]
    expected, after = reference.gated_delta(*(x.tolist() for x in given_), start, 1e-6)
    slack = 2e-6 * tokens * math.sqrt(dim) * (1e-3 + largest(given_[2].tolist(), start))
    assert_close(found, expected, absolute=slack)
    assert_close(as_matrices(states[1].tolist(), value_dim), after, absolute=slack)
    assert bits(states[0]) + bits(states[2]) == others, "a slot of no sequence was touched"


@given(data=st.data(), shape=heads(40), threads=THREADS)
def test_bits_do_not_depend_on_batch_chunks_or_threads(data, shape, threads):
    _, count, dim, value_dim = shape
    lengths = data.draw(st.lists(st.integers(1, 10), min_size=2, max_size=4))
    drawn = [data.draw(inputs(n, shape)) for n in lengths]
    whole, states = [], []
    for given_, n in zip(drawn, lengths, strict=True):
        state = Tensor.full(state_shape(1, count, dim, value_dim), math.nan)
        whole.append(ops.gated_delta(given_[0].to(Device("cpu", 1)), *given_[1:], state, batch_of((0, 0, n))))
        states.append(state)
    cuts = [data.draw(st.integers(0, n)) for n in lengths]
    slots = data.draw(st.permutations(range(len(lengths))))
    state = Tensor.full(state_shape(len(lengths), count, dim, value_dim), math.nan)
    found = [[] for _ in lengths]
    for pick in (lambda c, n: (0, c), lambda c, n: (c, n)):
        ranges = [(i, *pick(c, n)) for i, (c, n) in enumerate(zip(cuts, lengths, strict=True))]
        used = [(i, a, b) for i, a, b in ranges if b > a]
        if not used:
            continue
        joined = [Tensor.from_list([row for i, a, b in used for row in drawn[i][x][a:b].tolist()]) for x in range(5)]
        out = joined[2] if data.draw(st.booleans()) else None
        batch = batch_of(*((slots[i], a, b - a) for i, a, b in used))
        done, at = ops.gated_delta(joined[0].to(Device("cpu", threads)), *joined[1:], state, batch, out=out), 0
        for i, a, b in used:
            found[i].append(bits(done[at : at + b - a]))
            at += b - a
    for i in range(len(lengths)):
        assert b"".join(found[i]) == bits(whole[i])
        assert bits(state[slots[i]]) == bits(states[i][0])


@given(data=st.data(), shape=heads(40), past=st.integers(0, 1), threads=THREADS)
def test_a_sequence_that_is_cut_within_a_batch_leaves_its_state_there(data, shape, past, threads):
    _, count, dim, value_dim = shape
    ends = sorted(data.draw(st.sets(st.integers(1, 9), min_size=2, max_size=4)))
    given_ = data.draw(inputs(ends[-1], shape))
    start = Tensor.from_list([as_slices(data.draw(tensors((count, dim, value_dim))).tolist())])
    expected = []
    for end in ends:
        state = start.clone()
        out = ops.gated_delta(*(x[:end] for x in given_), state, batch_of((0, past, end)))
        expected.append(bits(state[0]))
    slots = data.draw(st.permutations(range(len(ends))))
    states = Tensor.full(state_shape(len(ends) + 1, count, dim, value_dim), math.nan)
    states[slots[0]].copy_(start[0])
    cuts = [(slots[0], past, ends[0])]
    cuts.extend((slots[i], past + ends[i - 1], ends[i] - ends[i - 1], False, slots[i - 1]) for i in range(1, len(ends)))
    found = ops.gated_delta(given_[0].to(Device("cpu", threads)), *given_[1:], states, batch_of(*cuts))
    assert bits(found) == bits(out)
    assert [bits(states[slot]) for slot in slots] == expected


@given(data=st.data(), tokens=st.integers(1, 5), shape=heads(20), threads=THREADS)
def test_heads_inside_a_fused_projection(data, tokens, shape, threads):
    key_heads, count, dim, value_dim = shape
    q, k, v, decay, beta = data.draw(inputs(tokens, shape))
    states = [Tensor.zeros(state_shape(1, count, dim, value_dim)) for _ in range(2)]
    batch = batch_of((0, 0, tokens))
    expected = ops.gated_delta(q.to(Device("cpu", 1)), k, v, decay, beta, states[0], batch)
    both = Tensor.zeros((tokens, key_heads, 2 * dim + 1))
    fused_q, fused_k = both[:, :, :dim].copy_(q), both[:, :, dim : 2 * dim].copy_(k)
    fused_v = Tensor.zeros((tokens, count + 2, value_dim + 3))[:, 1:-1, 2:-1].copy_(v)
    out = Tensor.zeros((tokens, count + 1, value_dim))[:, 1:]
    scratch = Tensor.full((tokens, key_heads, 2), math.nan)
    found = ops.gated_delta(
        fused_q.to(Device("cpu", threads)), fused_k, fused_v, decay, beta, states[1], batch, out=out, scratch=scratch
    )
    assert found is out
    assert bits(found) == bits(expected)
    assert bits(states[0]) == bits(states[1])


def test_what_a_state_learned_it_recalls():
    """With beta 1 and no decay a key brings back its value, however long the vectors are; decay 0 forgets all."""
    k = Tensor.from_list([[[3.0, 0.0, 0.0]], [[0.0, 50.0, 0.0]], [[0.2, 0.0, 0.0]]])
    v = Tensor.from_list([[[1.0, 2.0]], [[-4.0, 5.0]], [[1.0, 2.0]]])
    state, ones, gone = Tensor.zeros(state_shape(1, 1, 3, 2)), Tensor.full((3, 1), 1.0), Tensor.zeros((3, 1))
    found = ops.gated_delta(k, k, v, ones, ones, state, batch_of((0, 0, 3)))
    assert_close(found, [[[x / math.sqrt(3) for x in token[0]]] for token in v.tolist()], relative=1e-4)
    ops.gated_delta(k, k, v, gone, gone, state, batch_of((0, 3, 3)))
    assert state.tolist() == Tensor.zeros(state.shape).tolist()


def test_what_is_not_finite_stays_in_its_column():
    k, ones = Tensor.full((2, 1, 3), 1.0), Tensor.full((2, 1), 0.5)
    v = Tensor.from_list([[[1.0] * 34], [[1.0] * 33 + [math.inf]]])
    found = ops.gated_delta(
        k.to(Device("cpu", 2)), k, v, ones, ones, Tensor.zeros(state_shape(1, 1, 3, 34)), batch_of((0, 0, 2))
    )
    assert [(t, c) for t in range(2) for c, x in enumerate(found[t, 0].tolist()) if not math.isfinite(x)] == [(1, 33)]


def test_no_tokens_change_nothing():
    shape = state_shape(2, 1, 3, 2)
    state, none = Tensor.full(shape, 3.0), Tensor.zeros((0, 1))
    heads_ = Tensor.zeros((0, 1, 3))
    found = ops.gated_delta(heads_, heads_, Tensor.zeros((0, 1, 2)), none, none, state, batch_of((0, 0, 0)))
    assert found.shape == (0, 1, 2)
    k, v, gate = Tensor.zeros((1, 1, 3)), Tensor.zeros((1, 1, 2)), Tensor.full((1, 1), 1.0)
    ops.gated_delta(k, k, v, gate, gate, state, batch_of((0, 0, 0), (1, 0, 1)))
    assert state.tolist() == [Tensor.full(shape[1:], 3.0).tolist(), Tensor.zeros(shape[1:]).tolist()]


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((1, 6), (1, 3), (1, 20), (1, 40)), threads=THREADS)
def test_gates_that_are_made_on_the_way(data, dtype, shape, threads):
    tokens, key_heads, group, dim = shape
    heads = key_heads * group
    q, k = (data.draw(tensors((tokens, key_heads, dim))) for _ in range(2))
    v, b, a = (data.draw(tensors(part)) for part in ((tokens, heads, 3), (tokens, heads), (tokens, heads)))
    rate, bias = (data.draw(tensors((heads,), dtype)) for _ in range(2))
    batch, states = batch_of((1, 4, tokens)), [Tensor.full(state_shape(2, heads, dim, 3), 0.0) for _ in range(2)]
    wanted = ops.delta_gates(b, a, rate, bias)
    right = ops.gated_delta(q, k, v, wanted[1], wanted[0], states[0], batch)
    decay, beta = Tensor.full((tokens, heads), 7.0), Tensor.full((tokens, heads), 7.0)
    found = ops.gated_delta(
        q.to(Device("cpu", threads)), k, v, decay, beta, states[1], batch, gates=(b, a, rate, bias)
    )  # fmt: skip
    for one, other in ((found, right), (beta, wanted[0]), (decay, wanted[1]), tuple(states)):
        assert bits(one) == bits(other)
    with pytest.raises(TensorError, match="gated_delta: dt_bias has shape"):
        ops.gated_delta(q, k, v, decay, beta, states[1], batch, gates=(b, a, rate, bias.reshape(1, heads)))


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), shape=sizes((0, 6), (1, 50)), threads=THREADS)
def test_delta_gates(data, dtype, shape, threads):
    both = data.draw(tensors((shape[0], 2 * shape[1])))
    b, a = both[:, : shape[1]], both[:, shape[1] :]
    bias = data.draw(tensors(shape[1:], dtype))
    rate = Tensor.from_list([math.sin(x) * 3 for x in data.draw(numbers(shape[1]))], dtype)
    beta, decay = ops.delta_gates(b.to(Device("cpu", threads)), a, rate, bias)
    wanted = reference.delta_gates(b.tolist(), a.tolist(), rate.tolist(), bias.tolist())
    assert_close(beta, wanted[0], relative=1e-6, absolute=1e-37)
    # an error in an exponent is as large a share of the power; log(1 + e^x) is at most |x| + 1, its rate e^3
    assert_close(decay, wanted[1], relative=1e-5, absolute=3e-6)


@given(x=st.lists(st.floats(-120, 120, width=32), max_size=40), rate=st.floats(-9, 3, width=32))
@example(x=EDGES, rate=0.0)
@example(x=[i / 16 for i in range(-320, 320)], rate=-1.0)
def test_decay_of_one_gate(x, rate):
    n = len(x)
    a = Tensor.from_list([x]).reshape(1, n)
    _, decay = ops.delta_gates(a, a, Tensor.full((n,), rate), Tensor.zeros((n,)))
    wanted = reference.delta_gates([x], [x], [rate] * n, [0.0] * n)[1]
    # a number far below one is a power with a large exponent, which keeps seven digits
    slack = [
        w * 4e-7 * min(90.0, 1.0 + math.exp(rate) * reference.softplus(v)) for v, w in zip(x, *wanted, strict=True)
    ]
    assert_close(decay, wanted, absolute=[[1e-37 + s for s in slack]])


def test_gates_of_infinity_and_nan():
    x = Tensor.from_list([[math.inf, -math.inf, math.nan]])
    beta, decay = ops.delta_gates(x, x, Tensor.zeros((3,)), Tensor.zeros((3,)))
    assert beta.tolist()[0][:2] == [1.0, 0.0] and decay.tolist()[0][:2] == [0.0, 1.0]
    assert math.isnan(beta.tolist()[0][2]) and math.isnan(decay.tolist()[0][2])


def arguments():
    """What fits: two tokens, two key heads, four value heads."""
    return {
        "q": Tensor.zeros((2, 2, 5)),
        "k": Tensor.zeros((2, 2, 5)),
        "v": Tensor.zeros((2, 4, 3)),
        "decay": Tensor.zeros((2, 4)),
        "beta": Tensor.zeros((2, 4)),
        "state": Tensor.zeros(state_shape(1, 4, 5, 3)),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({name: [1.0]}, f"{name} is a list, expected a pio.Tensor") for name in (*arguments(), "out", "scratch")),
        ({"q": Tensor.zeros((2, 5))}, r"q has shape \(2, 5\), expected \(tokens, key_heads, dim\)"),
        ({"q": Tensor.zeros((2, 2, 5), "float16")}, "q is float16, expected float32"),
        ({"q": Tensor.zeros((2, 2, 10))[:, :, ::2]}, "q has strides .* make it .contiguous"),
        ({"k": Tensor.zeros((2, 2, 6))}, r"k has shape \(2, 2, 6\), expected \(2, 2, 5\)"),
        ({"v": Tensor.zeros((3, 4, 3))}, r"v has shape \(3, 4, 3\), expected \(2, heads, value_dim\)"),
        ({"v": Tensor.zeros((2, 3, 3))}, "3 value heads do not divide among 2 key heads"),
        ({"decay": Tensor.zeros((2, 3))}, r"decay has shape \(2, 3\), expected \(2, 4\)"),
        ({"beta": Tensor.zeros((2, 8))[:, ::2]}, "beta is a strided view"),
        ({"state": Tensor.zeros((1, 4, 5, 3))}, r"state has shape \(1, 4, 5, 3\), expected \(any, 4, 1, 5, 32\)"),
        ({"state": Tensor.from_buffer(bytes(2560), "float32", (1, 4, 1, 5, 32))}, "state is read-only"),
        ({"out": Tensor.from_buffer(bytes(96), "float32", (2, 4, 3))}, "out is read-only"),
        ({"out": Tensor.zeros((2, 4, 5))[:, :, :3]}, "out has strides"),
        ({"scratch": Tensor.zeros((2, 4, 2))}, r"scratch has shape \(2, 4, 2\), expected \(2, 2, 2\)"),
    ],
)
def test_gated_delta_refuses_what_does_not_fit(change, message):
    with pytest.raises(TensorError, match=f"^gated_delta: .*{message}"):
        ops.gated_delta(**arguments() | change, batch=batch_of((0, 0, 2)))


def test_results_do_not_lie_in_inputs():
    memory = Tensor.zeros((4, 1, 32))
    shapes = {
        "q": (4, 1, 1),
        "k": (4, 1, 1),
        "v": (4, 1, 32),
        "decay": (4, 1),
        "beta": (4, 1),
        "state": (1, 1, 1, 1, 32),
    }
    for out in ("out", "state"):
        for name in shapes:
            given_ = {n: Tensor.zeros(s) for n, s in shapes.items()} | {"out": Tensor.zeros((4, 1, 32))}
            if name in (out, "v"):
                continue
            for n in (out, name):
                shape = (4, 1, 32) if n == "out" else shapes[n]
                given_[n] = memory.reshape(-1)[: math.prod(shape)].reshape(shape)
            with pytest.raises(TensorError, match=f"gated_delta: {out} shares memory with {name}"):
                ops.gated_delta(**given_, batch=batch_of((0, 0, 4)))
    given_ = {n: Tensor.zeros(s) for n, s in shapes.items()}
    with pytest.raises(TensorError, match="out overlaps v without being it"):
        long = Tensor.zeros((5, 1, 32))
        ops.gated_delta(**given_ | {"v": long[:4]}, out=long[1:], batch=batch_of((0, 0, 4)))
    with pytest.raises(TensorError, match="scratch shares memory with q"):
        ops.gated_delta(**given_ | {"q": memory[:, :, :1]}, scratch=memory[0, 0, :8].reshape(4, 1, 2), batch=batch_of())


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("decay", "q", "decay shares memory with q"),
        ("beta", "v", "beta shares memory with v"),
        ("beta", "decay", "beta shares memory with decay"),
        ("decay", "b", "decay shares memory with b"),
        ("scratch", "a", "scratch shares memory with a"),
        ("out", "b", "out shares memory with b"),
    ],
)
def test_gates_that_are_made_lie_in_nothing_that_is_read_meanwhile(one, other, message):
    shapes = {"q": (3, 1, 1), "k": (3, 1, 1), "v": (3, 1, 1), "decay": (3, 1), "beta": (3, 1), "b": (3, 1)}
    shapes |= {"a": (3, 1), "a_log": (1,), "dt_bias": (1,), "out": (3, 1, 1), "scratch": (3, 1, 2)}
    shapes |= {"state": state_shape(1, 1, 1, 1)}
    memory, given_ = Tensor.zeros((6,)), {name: Tensor.zeros(shape) for name, shape in shapes.items()}
    for name in (one, other):
        given_[name] = memory[: math.prod(shapes[name])].reshape(shapes[name])
    gates = tuple(given_.pop(name) for name in ("b", "a", "a_log", "dt_bias"))
    with pytest.raises(TensorError, match=f"^gated_delta: {message};"):
        ops.gated_delta(**given_, gates=gates, batch=batch_of((0, 0, 3)))
