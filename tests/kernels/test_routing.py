import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import routing as reference
from pio.testing.strategies import tensors

THREADS = st.sampled_from((1, 2, 3))


@st.composite
def routers(draw):
    """Tokens, experts, k, groups, groups that are kept."""
    groups = draw(st.integers(1, 5))
    length = draw(st.integers(2, 30))
    kept = draw(st.integers(1, groups))
    return draw(st.integers(0, 9)), groups * length, draw(st.integers(1, min(11, kept * length))), groups, kept


def clear(found, bias, k, groups, kept_groups):
    """Whether rounding could not have changed the choice: what is taken and what comes next are well apart."""
    values = [f + b for f, b in zip(found, bias, strict=True)]
    length = len(values) // groups
    best = sorted((sorted(values[at : at + length], reverse=True) for at in range(0, len(values), length)), key=worth)
    kept, left = best[groups - kept_groups :], best[: groups - kept_groups]
    if left and worth(kept[0]) - worth(left[-1]) < 1e-5:
        return False
    among = sorted((v for group in kept for v in group), reverse=True)[: k + 1]
    return all(a - b > 1e-5 for a, b in itertools.pairwise(among))


def worth(group):
    """What a group counts, its best first."""
    return sum(group[:2])


@given(data=st.data(), shape=routers(), logistic=st.booleans(), renormalise=st.booleans(), threads=THREADS)
def test_route(data, shape, logistic, renormalise, threads):
    tokens, experts, k, groups, kept = shape
    logits = data.draw(tensors((tokens, experts)))
    bias = data.draw(tensors((experts,))) if data.draw(st.booleans()) else None
    scaling = data.draw(st.sampled_from((1.0, 1.75)))
    options = {"groups": groups, "kept_groups": kept, "renormalise": renormalise, "scaling": scaling}
    choices = ops.Choices.empty(tokens, k, experts)
    rows = logits.tolist()
    found = ops.route(logits.to(Device("cpu", threads)), out=choices, bias=bias, logistic=logistic, **options)
    assert found is choices
    shift = bias.tolist() if bias is not None else [0.0] * experts
    for row, ids, weights in zip(rows, choices.ids.tolist(), choices.weights.tolist(), strict=True):
        scores = reference.scores(row, logistic=logistic)
        wanted, factors = reference.choose(scores, k, bias=shift, **options)
        if clear(scores, shift, k, groups, kept):
            assert ids == wanted
            assert_close(Tensor.from_list(weights), factors, absolute=[1e-5 * abs(f) + 1e-7 for f in factors])
        assert len(set(ids)) == k


@given(data=st.data(), tokens=st.integers(0, 17), k=st.integers(1, 5), experts=st.integers(5, 23))
def test_choices_are_sorted_by_expert(data, tokens, k, experts):
    choices = ops.Choices.empty(tokens, k, experts)
    ops.route(data.draw(tensors((tokens, experts))).to(Device("cpu", 2)), out=choices)
    order, starts, places = reference.group_by_expert(choices.ids.tolist(), experts)
    assert choices.order.tolist() == order
    assert choices.starts.tolist() == starts
    assert choices.places.reshape(-1).tolist() == places


def test_a_bias_chooses_but_does_not_weigh():
    logits, bias = Tensor.from_list([[0.0, 1.0, -1.0, 0.5]]), Tensor.from_list([0.0, -9.0, 9.0, 0.0])
    choices = ops.route(logits, out=ops.Choices.empty(1, 2, 4), bias=bias, logistic=True, renormalise=False)
    assert choices.ids.tolist() == [[2, 3]]
    wanted = [1 / (1 + math.exp(1.0)), 1 / (1 + math.exp(-0.5))]
    assert choices.weights.tolist()[0] == pytest.approx(wanted, rel=1e-6)


def test_experts_of_lesser_groups_are_not_chosen():
    # group 0 has the best expert of all, group 1 the two best together
    logits = Tensor.from_list([[5.0, -5.0, 3.0, 2.9, 0.0, 0.1]])
    options = {"groups": 3, "kept_groups": 1, "logistic": True}
    choices = ops.route(logits, out=ops.Choices.empty(1, 2, 6), **options)
    assert choices.ids.tolist() == [[2, 3]]


def test_what_is_no_number_chooses_some_experts_and_shows():
    logits = Tensor.from_list([[1.0, math.nan, 2.0], [0.5, 0.0, 0.25]])
    choices = ops.route(logits, out=ops.Choices.empty(2, 2, 3))
    ids, weights = choices.ids.tolist(), choices.weights.tolist()
    assert len(set(ids[0])) == 2 and all(0 <= i < 3 for i in ids[0]) and all(map(math.isnan, weights[0]))
    assert ids[1] == [0, 2] and all(map(math.isfinite, weights[1]))


def test_a_token_chooses_alone_as_among_others():
    logits = Tensor.from_list([[math.sin(3.0 * r + 0.7 * e) for e in range(37)] for r in range(7)])
    alone = [ops.route(logits[r : r + 1].clone(), out=ops.Choices.empty(1, 4, 37)) for r in range(7)]
    together = ops.route(logits.to(Device("cpu", 3)), out=ops.Choices.empty(7, 4, 37))
    assert b"".join(bits(c.weights) for c in alone) == bits(together.weights)
    assert [c.ids.tolist()[0] for c in alone] == together.ids.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 4}, "groups=4 and kept_groups=1 of 6 experts, expected groups that divide"),
        ({"groups": 2, "kept_groups": 3}, "groups=2 and kept_groups=3 of 6 experts"),
        ({"groups": 3, "kept_groups": 1}, "k=3 is out of range, expected 1 to 2 experts"),
        ({"bias": Tensor.zeros((5,))}, "bias has shape"),
        ({"scratch": Tensor.zeros((2, 6))}, "scratch has shape"),
        ({"scratch": Tensor.zeros((0, 8))}, r"scratch has shape \(0, 8\), expected a row for each thread"),
        ({"scratch": Tensor.from_buffer(bytes(32), "float32", (1, 8))}, "scratch is read-only"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(TensorError, match=f"^route: {message}"):
        ops.route(Tensor.zeros((2, 6)), out=ops.Choices.empty(2, 3, 6), **options)


@pytest.mark.parametrize("name", ["ids", "weights", "order", "places", "starts"])
def test_room_must_be_writable(name):
    room = ops.Choices.empty(2, 3, 6)
    shape, kind = getattr(room, name).shape, getattr(room, name).dtype
    frozen = replace(room, **{name: Tensor.from_buffer(bytes(4 * math.prod(shape)), kind, shape)})
    with pytest.raises(TensorError, match=f"^route: {name} is read-only"):
        ops.route(Tensor.zeros((2, 6)), out=frozen)


def test_room_must_fit_the_tokens():
    with pytest.raises(TensorError, match="route: ids has shape"):
        ops.route(Tensor.zeros((3, 6)), out=ops.Choices.empty(2, 3, 6))
    with pytest.raises(TensorError, match="route: starts has shape"):
        ops.route(Tensor.zeros((2, 7)), out=ops.Choices.empty(2, 3, 6))
