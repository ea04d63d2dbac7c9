"""Tokens of a step that may not stand: what a cache keeps of them, whose they are, and when they are forgotten."""

import pytest

import pio
from pio import ops
from pio.cache.batch import Batch
from pio.cache.format import CacheFormat
from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedCache
from pio.cache.protocol import UNBOUNDED, begin_step, check_offered, tentative_tokens
from pio.cache.recurrent import RecurrentStates
from pio.dtypes import float32
from pio.memory.budget import MemoryBudget
from pio.ops.gated_delta import state_shape
from pio.tensor import Tensor
from pio.testing.compare import bits

LAYERS, SLOTS, ROOM = 2, 3, 7
KEY_HEADS, HEADS, DIM, VALUE_DIM, WIDTH = 1, 2, 5, 3, 3
CHANNELS = 2 * KEY_HEADS * DIM + HEADS * VALUE_DIM
SHAPES = (WIDTH - 1, CHANNELS), state_shape(1, HEADS, DIM, VALUE_DIM)[1:]


def states_for(tokens=ROOM, **options):
    return RecurrentStates(LAYERS, SLOTS, SHAPES, tentative_tokens=tokens, key_heads=KEY_HEADS, **options)


def hybrid(states):
    paged = PagedCache(1, 64, CacheFormat.keys_and_values(float32, 1, 2))
    return HybridCache([False, True, False], paged, states)


def numbers(*shape, seed=1):
    size = 1
    for n in shape:
        size *= n
    return Tensor.from_list([((i * 37 + 11 * seed) % 101 - 50) / 50 for i in range(size)]).reshape(*shape)


def run(states, *sequences, tell=True):
    """A step of (slot, past, tokens, tentative); a token's numbers follow from its slot and its position."""
    batch = Batch(32, SLOTS, 1, 1)
    for slot, past, tokens, tentative in sequences:
        batch.add([0] * tokens, past, [0], 0, slot, tentative=tentative)
    if tell:
        begin_step(hybrid(states), batch)
    rows = [numbers(CHANNELS, seed=31 * s + p + t) for s, p, n, _ in sequences for t in range(n)]
    x = Tensor.from_list([row.tolist() for row in rows])
    weight, gate = numbers(WIDTH, CHANNELS), Tensor.full((len(rows), HEADS), 0.75)
    for layer in range(LAYERS):
        inputs, state, *window = states.layer(layer)
        more = {"window": window[0]} if window else {}
        mixed = ops.causal_conv(x, weight, inputs, batch, **more)
        q, k = (mixed[:, i * DIM : (i + 1) * DIM].contiguous().reshape(-1, KEY_HEADS, DIM) for i in range(2))
        v = mixed[:, 2 * DIM :].contiguous().reshape(-1, HEADS, VALUE_DIM)
        ops.gated_delta(q, k, v, gate, gate, state, batch, **more)


def held(states, slot):
    return [bits(kept[slot]) for layer in range(LAYERS) for kept in states.layer(layer)[:2]]


def decoded(slot, past, tokens):
    """The states of a sequence behind so many tokens, each in a step of its own."""
    states = RecurrentStates(LAYERS, SLOTS, SHAPES)
    for t in range(past + tokens):
        run(states, (slot, t, 1, False), tell=False)
    return held(states, slot)


def test_sequences_of_a_step_are_committed_each_with_its_own_count():
    states = states_for()
    for slot in range(SLOTS):
        run(states, (slot, 0, 4, False))
    before = [held(states, slot) for slot in range(SLOTS)]
    run(states, (2, 4, 3, True), (0, 4, 2, False), (1, 4, 4, True))
    assert held(states, 2) == before[2] and held(states, 1) == before[1]
    assert held(states, 0) == decoded(0, 4, 2)
    states.commit(1, 3)
    states.commit(2, 1)
    assert [held(states, slot) for slot in range(SLOTS)] == [decoded(0, 4, 2), decoded(1, 4, 3), decoded(2, 4, 1)]
    run(states, (1, 7, 1, False), (2, 5, 2, True))
    states.commit(2, 2)
    assert [held(states, slot) for slot in (1, 2)] == [decoded(1, 7, 1), decoded(2, 5, 2)]


@pytest.mark.parametrize("stand", [None, 0, 1, 3])
def test_a_first_token_may_be_tentative(stand):
    states = states_for()
    run(states, (1, 0, 5, False))  # what a slot holds of another sequence counts for nothing
    before = held(states, 1)
    run(states, (1, 0, 3, True))
    assert held(states, 1) == before
    if stand is not None:
        states.commit(1, stand)
    assert held(states, 1) == (decoded(1, 0, stand) if stand else before)


def test_what_is_committed_twice_or_too_much_is_refused():
    cache = hybrid(states := states_for())
    run(states, (0, 4, 3, True), (1, 4, 2, False))
    with pytest.raises(pio.CapacityError, match="4 tokens of slot 0 are to be committed: the last step left 3"):
        cache.commit(0, 4)
    run(states, (0, 4, 3, True), (1, 4, 2, False))
    before = held(states, 1)
    cache.commit(0, 2)
    for slot, tokens in ((0, 1), (1, 1), (2, 1), (0, -1)):
        with pytest.raises(pio.CapacityError, match=f"{tokens} tokens of slot {slot} .*the last step left 0"):
            cache.commit(slot, tokens)
    for slot in range(SLOTS):
        cache.commit(slot, 0)
    assert held(states, 1) == before
    with pytest.raises(pio.CapacityError, match="slot 3 does not exist"):
        cache.commit(3, 0)


def test_what_changes_states_forgets_their_tentative_tokens():
    states = states_for()
    cache, mark = hybrid(states), None
    for slot in range(SLOTS):
        run(states, (slot, 0, 4, False))
    mark = cache.snapshot(1, 4)
    for change in (
        lambda: cache.copy_states(0, 1),
        lambda: cache.restore(1, mark),
        lambda: cache.truncate(1, 0),
        lambda: run(states, (0, 4, 1, False)),
        lambda: run(states, (0, 4, 1, True)),
    ):
        run(states, (1, 4, 3, True), (2, 4, 3, True))
        change()
        before = held(states, 1)
        with pytest.raises(pio.CapacityError, match=r"3 tokens of slot 1 .*the last step left 0"):
            cache.commit(1, 3)
        assert held(states, 1) == before


def test_copies_and_snapshots_between_are_of_the_states_before_the_step():
    states = states_for()
    cache = hybrid(states)
    run(states, (0, 0, 4, False))
    run(states, (0, 4, 3, True))
    cache.copy_states(0, 1)
    mark = cache.snapshot(0, 4)
    cache.commit(0, 3)
    assert held(states, 0) == decoded(0, 4, 3) and held(states, 1) == decoded(0, 4, 0)
    cache.restore(2, mark)
    assert held(states, 2) == decoded(0, 4, 0)


def test_more_tokens_than_there_is_room_for():
    states = states_for(tokens=4)
    before = held(states, 0)
    with pytest.raises(pio.CapacityError, match="5 tokens of a step are tentative, this cache has room for 4"):
        run(states, (0, 4, 3, True), (1, 4, 9, False), (2, 4, 2, True))
    assert held(states, 0) == before
    run(states, (0, 4, 3, True), (1, 4, 9, False), (2, 4, 1, True))


def test_states_that_were_made_for_none_say_so():
    plain = hybrid(RecurrentStates(LAYERS, SLOTS, SHAPES))
    assert tentative_tokens(plain) == 0 and len(plain.layer(0)) == 2
    with pytest.raises(pio.CapacityError, match="no room to keep its tokens; make the states with tentative_tokens"):
        run(plain.recurrent, (0, 4, 1, True))
    run(plain.recurrent, (0, 4, 1, False))
    plain.commit(0, 0)
    with pytest.raises(pio.CapacityError, match="1 tokens of slot 0 are to be committed: this cache has no room"):
        plain.commit(0, 1)
    assert tentative_tokens(hybrid(states_for())) == ROOM


def test_a_cache_that_knows_nothing_of_it():
    class Old(PagedCache):
        commit = None

    made = Old(1, 64, CacheFormat.keys_and_values(float32, 1, 2))
    batch = Batch(2, 1, 1, 1)
    batch.add([0, 0], 3, [0], 1, tentative=True)
    check_offered(made)
    assert tentative_tokens(made) == UNBOUNDED
    begin_step(made, batch)
    made.state_bytes = 8
    assert tentative_tokens(made) == 0
    with pytest.raises(pio.CapacityError, match="the states of this Old cannot wait for its tokens"):
        begin_step(made, batch)


def test_the_room_counts_and_comes_back():
    budget = MemoryBudget(1 << 20)
    states = states_for(budget=budget)
    assert budget.used == states.nbytes + states.window_bytes and states.window_bytes > 4 * LAYERS * ROOM * CHANNELS
    cache = hybrid(states)
    assert cache.nbytes == cache.paged.nbytes + budget.used and cache.state_bytes == states.nbytes // SLOTS
    cache.free()
    assert budget.used == 0
    with pytest.raises(pio.PioError, match="freed"):
        cache.commit(0, 0)
    with pytest.raises(pio.OutOfMemoryError, match="room for 7 tokens that may not stand, in 2 recurrent layers"):
        states_for(budget=MemoryBudget(states.nbytes + 100))
