"""States of recurrent layers: their memory, their copies, and what a cache of two kinds hands out."""

import pytest

import pio
from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedKVCache
from pio.cache.recurrent import RecurrentStates
from pio.dtypes import float32
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor
from pio.testing.compare import bits

SHAPES = ((3, 5), (2, 4, 7))


def filled(layers=3, slots=4, shapes=SHAPES):
    states = RecurrentStates(layers, slots, shapes)
    for layer in range(layers):
        for kind, state in enumerate(states.layer(layer)):
            for slot in range(slots):
                state[slot].fill_(100.0 * layer + 10.0 * kind + slot)
    return states


def values(states, slot, layers=3):
    return [state[slot].reshape(-1)[0].item() for layer in range(layers) for state in states.layer(layer)]


def test_layers_and_slots_do_not_share_memory():
    states = filled()
    for slot in range(4):
        assert values(states, slot) == [slot, 10.0 + slot, 100.0 + slot, 110.0 + slot, 200.0 + slot, 210.0 + slot]
    assert [state.shape for state in states.layer(2)] == [(4, 3, 5), (4, 2, 4, 7)]
    assert states.nbytes == 3 * (256 + 896)


def test_a_snapshot_is_a_copy_that_fits_into_any_slot():
    states = filled()
    taken = states.snapshot(1, 7)
    assert taken.nbytes == 3 * 4 * (15 + 56)
    for layer in range(3):
        states.layer(layer)[1][1].fill_(-1.0)
    states.restore(3, taken)
    assert values(states, 3) == [1.0, 11.0, 101.0, 111.0, 201.0, 211.0]
    assert values(states, 2) == [2.0, 12.0, 102.0, 112.0, 202.0, 212.0]


def test_the_memory_of_a_slot_is_that_of_its_states():
    states = filled()
    memory = states.state_memory()
    assert [(pool.shape[0], pool.nbytes) for pool in memory] == [(4, 4 * 4 * 15), (4, 4 * 4 * 56)] * 3
    for pool in memory:
        pool[3].copy_(pool[1])
    assert values(states, 3) == values(states, 1) == [1.0, 11.0, 101.0, 111.0, 201.0, 211.0]
    assert values(states, 2) == [2.0, 12.0, 102.0, 112.0, 202.0, 212.0]
    assert bits(states.snapshot(3, 7).states) == bits(states.snapshot(1, 7).states)


@pytest.mark.parametrize(
    ("layers", "shapes"), [(2, SHAPES), (3, ((3, 5), (2, 7, 4))), (3, ((5, 3), (2, 4, 7)))], ids=str
)
def test_a_snapshot_of_another_model_is_refused(layers, shapes):
    taken = filled(layers, 4, shapes).snapshot(0, 7)
    states = filled()
    with pytest.raises(pio.ConfigError, match="does not fit this cache of 3 layers"):
        states.restore(0, taken)
    assert values(states, 0) == [0.0, 10.0, 100.0, 110.0, 200.0, 210.0]


def test_slots_that_do_not_exist():
    states = filled()
    for slot in (-1, 4):
        with pytest.raises(pio.CapacityError, match=f"slot {slot} does not exist: this cache has states for 4"):
            states.snapshot(slot, 7)


def test_memory_counts_and_comes_back():
    budget = MemoryBudget(10_000)
    states = RecurrentStates(3, 4, SHAPES, budget=budget)
    with pytest.raises(pio.OutOfMemoryError, match="fewer with max_batch_sequences"):
        RecurrentStates(30, 4, SHAPES, budget=budget)
    states.free()
    for use in (lambda: states.layer(0), lambda: states.snapshot(0, 7), states.state_memory):
        with pytest.raises(pio.PioError, match="this cache was freed"):
            use()


def test_a_cache_of_two_kinds_hands_out_each_layers_own():
    paged, recurrent = PagedKVCache(2, 70, 3, 8, float32), filled(3)
    cache = HybridCache([False, True, False, False, True], paged, recurrent)
    assert (cache.block_size, cache.num_blocks) == (paged.block_size, paged.num_blocks)
    assert cache.nbytes == paged.nbytes + recurrent.nbytes
    found = [cache.layer(i)[0].address for i in range(5)]
    own = [recurrent.layer(0), paged.layer(0), recurrent.layer(1), recurrent.layer(2), paged.layer(1)]
    assert found == [tensors[0].address for tensors in own]
    cache.free()
    with pytest.raises(pio.PioError, match="freed"):
        cache.layer(1)
    with pytest.raises(pio.PioError, match="freed"):
        cache.layer(0)


def test_states_of_one_slot_are_tensors_of_their_own():
    states = RecurrentStates(1, 1, ((1,), (1, 1, 1)))
    a, b = states.layer(0)
    a.fill_(2.0)
    assert b.tolist() == Tensor.zeros((1, 1, 1, 1)).tolist()
