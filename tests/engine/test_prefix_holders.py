"""Who finds known blocks, and what becomes of these, against what tokens say."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from toy_model import PagedToyCache, ToyCache

from pio.engine.cache_manager import CacheManager
from pio.engine.sequence import NO_SLOT, Sequence

NOBODY: Any = None
BLOCKS, SIZE, SLOTS = 11, 3, 4
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=20)  # so few that beginnings are often the same
SALTS = st.sampled_from([None, "a", "b"])


def make(tokens: list[int], salt: str | None = None, outputs: int = 1) -> Sequence:
    return Sequence(NOBODY, array("i", tokens), outputs, salt=salt)


class Finders(RuleBasedStateMachine):
    """Each sequence reads in its blocks what it has computed or would have, whatever others did before."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.cache = PagedToyCache(BLOCKS, SIZE)
        self.manager = CacheManager(self.cache, SLOTS)
        self.held: list[Sequence] = []
        self.salts: dict[Sequence, str | None] = {}
        self.computed: set[tuple[str | None, tuple[int, ...]]] = set()  # beginnings in full blocks

    def _compute(self, s: Sequence, count: int) -> None:
        """Do as a model does, for a part of what is pending."""
        for i in range(s.num_computed, s.num_computed + count):
            self.cache.blocks[s.blocks[i // SIZE]][i % SIZE] = s.tokens[i]
        s.num_computed += count
        for end in range(SIZE, s.num_computed + 1, SIZE):
            self.computed.add((self.salts[s], tuple(s.tokens[:end])))

    def _found_beside(self, tokens: list[int], salt: str | None, most: int) -> int:
        """How many tokens a newcomer shares with full blocks of those that run."""
        found = 0
        for s in self.held:
            same = 0
            while same < min(s.num_computed, most) and s.tokens[same] == tokens[same]:
                same += 1
            found = max(found, same // SIZE * SIZE if self.salts[s] == salt else 0)
        return found

    @rule(target=running, tokens=TOKENS, salt=SALTS, reserve=st.integers(0, 3), scored=st.booleans())
    def admit(self, tokens: list[int], salt: str | None, reserve: int, scored: bool) -> Sequence:
        s = make(tokens, salt, len(tokens) if scored else 1)
        self.salts[s] = salt
        self.manager.learn(self.held)
        free, needed, most = self.manager.num_free, -(-len(tokens) // SIZE), len(tokens) - s.outputs
        beside = self._found_beside(tokens, salt, most)
        if self.manager.admit(s, reserve):
            assert free - needed <= self.manager.num_free <= free and self.manager.num_free >= reserve
            assert s.num_computed % SIZE == 0 and beside <= s.num_computed <= max(0, most)
            assert s.num_computed == s.reused == s.cached_tokens
            assert s.num_computed == 0 or (salt, tuple(tokens[: s.num_computed])) in self.computed
            self.held.append(s)
        else:
            assert len(self.held) == SLOTS or free - needed + beside // SIZE < reserve
            assert (self.manager.num_free, len(s.blocks), s.slot) == (free, 0, NO_SLOT)
        return s

    @rule(s=running, count=st.integers(1, 9))
    def compute(self, s: Sequence, count: int) -> None:
        if s in self.held and self.manager.grow(s, len(s.tokens)):
            self._compute(s, min(count, s.pending))

    @rule(s=running, token=st.integers(0, 1))
    def answer(self, s: Sequence, token: int) -> None:
        if s in self.held and s.pending == 0:
            s.tokens.append(token)

    @rule(target=running, s=running, reserve=st.integers(0, 3))
    def fork(self, s: Sequence, reserve: int) -> Sequence:
        child = make(s.tokens.tolist(), self.salts[s])
        self.salts[child] = self.salts[s]
        if s in self.held and self.manager.fork(s, child, reserve):
            child.num_computed = s.num_computed
            self.held.append(child)
        return child

    @rule()
    def learn(self) -> None:
        self.manager.learn(self.held)

    @rule(s=consumes(running))
    def release(self, s: Sequence) -> None:
        if s in self.held:
            self.held.remove(s)
        for _ in range(2):
            self.manager.release(s)
            assert (len(s.blocks), s.slot, s.num_computed) == (0, NO_SLOT, 0)

    @invariant()
    def nothing_is_lost_and_nothing_overwritten(self) -> None:
        owners = Counter(block for s in self.held for block in s.blocks)
        assert [self.manager.owners(block) for block in range(BLOCKS)] == [owners[block] for block in range(BLOCKS)]
        assert self.manager.num_free == BLOCKS - len(owners)
        assert self.manager.known.num_kept <= self.manager.num_free
        assert self.manager.num_shared == sum(count > 1 for count in owners.values())
        for s in self.held:
            read = [token for block in s.blocks for token in self.cache.blocks[block]]
            assert read[: s.num_computed] == s.tokens[: s.num_computed].tolist()


TestFinders = Finders.TestCase


class Pool:
    """A manager and what a model would do."""

    def __init__(self, num_blocks: int = 8, cache: type[ToyCache] = PagedToyCache, **options: Any) -> None:
        self.manager = CacheManager(cache(num_blocks, 4), 4, **options)

    def run(self, tokens: list[int], salt: str | None = None) -> Sequence:
        """Admit a sequence and compute all of it."""
        s = make(tokens, salt)
        assert self.manager.admit(s, 0)
        s.num_computed = len(tokens)
        return s

    def done(self, tokens: list[int], salt: str | None = None) -> int:
        """Compute a sequence and release it; return how many of its tokens were there already."""
        s = self.run(tokens, salt)
        self.manager.release(s)
        return s.cached_tokens


def test_what_is_found() -> None:
    pool, tokens = Pool(), list(range(12))
    assert pool.done(tokens) == 0
    assert (pool.manager.num_free, pool.manager.known.num_kept) == (8, 3)
    assert pool.done(tokens) == 8, "its last token is always computed"
    assert pool.done([*tokens, 5]) == 12
    assert pool.done([*tokens[:7], 99, 98]) == 4, "it goes another way in its second block"
    assert pool.done([99, *tokens]) == 0
    assert pool.done(tokens[:4]) == 0
    assert pool.done(tokens, "me") == 0
    assert pool.done(tokens, "me") == 8
    assert pool.done(tokens, "mee") == 0
    assert pool.manager.known.tokens == 8 + 12 + 4 + 8


def test_what_gives_way_first() -> None:
    """The blocks that were used least recently, and of a sequence its end."""
    pool, old, new = Pool(8), list(range(100, 116)), list(range(200, 216))
    pool.done(old)
    pool.done(new)
    assert pool.manager.known.num_kept == 8
    pool.done([1, 2, 3, 4, 5])  # two blocks: the last ones of what is oldest
    assert pool.done([*new, 9]) == 16
    assert pool.done([*old, 9]) < 16


def test_the_end_of_a_sequence_goes_before_its_beginning() -> None:
    pool, tokens = Pool(4), list(range(16))
    pool.done(tokens)
    other = pool.run([99])
    assert pool.manager.known.num_kept == 3
    found = pool.run([*tokens[:12]])
    assert found.cached_tokens == 8
    pool.manager.release(other)
    pool.manager.release(found)
    assert pool.done([*tokens[:12], 77]) == 12


def test_two_that_computed_the_same_hold_one_block() -> None:
    pool = Pool(8)
    first, second = make(list(range(9))), make(list(range(9)))
    for s in (first, second):
        assert pool.manager.admit(s, 0)
    for s in (first, second):
        s.num_computed = 9
    assert pool.manager.num_free == 2
    pool.manager.learn([first, second])
    assert first.blocks[:2] == second.blocks[:2] and first.blocks[2] != second.blocks[2]
    assert (pool.manager.num_free, pool.manager.num_shared) == (4, 2)
    pool.manager.release(first)
    pool.manager.release(second)
    assert (pool.manager.num_free, pool.manager.num_shared, pool.manager.known.num_kept) == (8, 0, 2)


def test_a_hit_takes_no_room_that_is_held_already() -> None:
    pool, tokens = Pool(4), list(range(13))
    first = pool.run(tokens)
    pool.manager.learn([first])
    second = make(tokens)
    assert not pool.manager.admit(second, 0), "its last block is its own, and there is none"
    assert pool.manager.num_free == 0
    pool.manager.release(first)
    assert pool.manager.admit(second, 0) and second.num_computed == 12


@pytest.mark.parametrize("options", [{"cache": ToyCache}, {"prefix_cache": False}])
def test_nothing_is_known_where_layers_keep_states_or_nobody_wants_it(options: dict[str, Any]) -> None:
    pool = Pool(**options)
    assert [pool.done(list(range(12))) for _ in range(2)] == [0, 0]
    assert (len(pool.manager.known), pool.manager.known.tokens) == (0, 0)


def test_all_is_forgotten_with_a_reset() -> None:
    pool = Pool()
    pool.done(list(range(12)))
    pool.manager.reset()
    assert (pool.manager.num_free, pool.manager.known.num_kept) == (8, 0)
    assert pool.done(list(range(12))) == 0
