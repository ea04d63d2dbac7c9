from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from toy_model import ToyCache

from pio.engine.cache_manager import CacheManager
from pio.engine.sequence import NO_SLOT, Sequence
from pio.errors import CacheError, ConfigError

NOBODY: Any = None
BLOCKS, SIZE, SLOTS = 13, 3, 4


def make(length: int = 0) -> Sequence:
    return Sequence(NOBODY, array("i", range(length)))


class Holders(RuleBasedStateMachine):
    """Whatever sequences do, each finds in its blocks and its state what it wrote there, and no block is lost."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.cache = ToyCache(BLOCKS, SIZE)
        self.manager = CacheManager(self.cache, SLOTS)
        self.held: list[Sequence] = []
        self.written = 0

    def _write(self, s: Sequence) -> None:
        """Do as a model does: store the tokens that it has not seen."""
        for i in range(s.num_computed, len(s.tokens)):
            self.cache.blocks[s.blocks[i // SIZE]][i % SIZE] = s.tokens[i]
        self.cache.states[s.slot] = s.tokens.tolist()
        s.num_computed = len(s.tokens)

    def _new_tokens(self, count: int) -> array[int]:
        self.written += count  # no two are equal
        return array("i", range(self.written - count, self.written))

    @rule(target=running, length=st.integers(1, 20), reserve=st.integers(0, 3))
    def admit(self, length: int, reserve: int) -> Sequence:
        s = Sequence(NOBODY, self._new_tokens(length))
        needed = -(-length // SIZE)
        fits = len(self.held) < SLOTS and self.manager.num_free >= needed + reserve
        assert self.manager.admit(s, reserve) == fits
        if fits:
            assert len(s.blocks) == needed
            self._write(s)
            self.held.append(s)
        return s

    @rule(s=running, count=st.integers(1, 9))
    def grow(self, s: Sequence, count: int) -> None:
        if s not in self.held:
            return
        before, free, computed = s.blocks.tolist(), self.manager.num_free, s.num_computed
        owners = self._owners()
        shared = [b for b in before[computed // SIZE :] if owners[b] > 1]
        needed = max(0, -(-(computed + count) // SIZE) - len(before)) + len(shared)
        assert self.manager.grow(s, computed + count) == (needed <= free)
        if needed > free:
            assert (s.blocks.tolist(), self.manager.num_free) == (before, free)
            return
        assert self.manager.num_free == free - needed
        assert s.blocks.tolist()[: computed // SIZE] == before[: computed // SIZE]
        s.tokens.extend(self._new_tokens(count))
        self._write(s)

    @rule(target=running, s=running, reserve=st.integers(0, 3))
    def fork(self, s: Sequence, reserve: int) -> Sequence:
        child = Sequence(NOBODY, s.tokens)
        if s in self.held:
            fits = len(self.held) < SLOTS and self.manager.num_free >= reserve
            assert self.manager.fork(s, child, reserve) == fits
            if fits:
                child.num_computed = s.num_computed
                self.held.append(child)
        return child

    @rule(s=consumes(running))
    def release(self, s: Sequence) -> None:
        if s in self.held:
            self.held.remove(s)
        for _ in range(2):  # one that holds nothing may be released
            self.manager.release(s)
            assert (len(s.blocks), s.slot, s.num_computed) == (0, NO_SLOT, 0)

    def _owners(self) -> Counter[int]:
        return Counter(block for s in self.held for block in s.blocks)

    @invariant()
    def nothing_is_lost_and_nothing_overwritten(self) -> None:
        owners = self._owners()
        assert [self.manager.owners(block) for block in range(BLOCKS)] == [owners[block] for block in range(BLOCKS)]
        assert self.manager.num_free == BLOCKS - len(owners)
        assert self.manager.num_shared == sum(count > 1 for count in owners.values())
        assert len({s.slot for s in self.held}) == len(self.held) == SLOTS - self.manager.num_free_slots
        for s in self.held:
            kept = [token for block in s.blocks for token in self.cache.blocks[block]]
            assert kept[: s.num_computed] == self.cache.states[s.slot] == s.tokens.tolist()


TestHolders = Holders.TestCase


def test_sizes() -> None:
    manager = CacheManager(ToyCache(4, 8), 2)
    assert [manager.blocks_needed(n) for n in (0, 1, 8, 9)] == [0, 1, 1, 2]
    assert (manager.num_tokens, manager.num_free, manager.num_free_slots) == (32, 4, 2)
    with pytest.raises(ConfigError, match="at least one block"):
        CacheManager(ToyCache(0, 8), 2)


def test_a_block_or_a_slot_that_is_released_twice() -> None:
    manager = CacheManager(ToyCache(4, 8), 2)
    s = make(9)
    assert manager.admit(s, 0)
    blocks, slot = s.blocks[:], s.slot
    manager.release(s)
    s.blocks.extend(blocks)
    with pytest.raises(CacheError, match=f"block {blocks[1]} of the cache was released twice"):
        manager.release(s)
    del s.blocks[:]
    s.slot = slot
    with pytest.raises(CacheError, match=f"slot {slot} of the cache was released twice"):
        manager.release(s)
    assert (manager.num_free, manager.num_free_slots) == (4, 2)


def test_a_block_with_two_owners_is_copied_once_and_a_full_one_never() -> None:
    cache = ToyCache(9, 4)
    manager = CacheManager(cache, 3)
    first, others = make(6), [make(6), make(6)]
    assert manager.admit(first, 0)
    first.num_computed = 6
    for other in others:
        assert manager.fork(first, other, 0)
        other.num_computed = 6
    full, begun = first.blocks
    for s in (others[0], first, others[1]):
        assert manager.grow(s, 7)
    assert [source for source, _ in cache.copied] == [begun, begun], "the last owner needs no copy"
    assert others[1].blocks[1] == begun
    assert [s.blocks[0] for s in (first, *others)] == [full] * 3
    assert (manager.num_shared, manager.owners(full), manager.owners(begun)) == (1, 3, 1)
