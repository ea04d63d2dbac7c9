"""Sequences of a model with states, stepped by hand: each finds what is its own, and no slot is lost or held twice."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from toy_model import ToyCache, ToyModel, toy_logits

from pio.engine.block_keys import BlockKeys, root_key
from pio.engine.cache_manager import CacheManager
from pio.engine.runner import Runner
from pio.engine.scheduler import Scheduler
from pio.engine.sequence import NO_SLOT, Sequence, Status
from pio.tensor import Tensor

SIZE, SLOTS = 3, 4
SALTS = st.sampled_from([None, "a"])
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=26)  # so few that beginnings are often the same


class Answering:
    """Takes the likeliest token so many times, each of which is compared with a cold run's."""

    dead, expires, seconds = False, math.inf, math.inf

    def __init__(self, count: int) -> None:
        self.left = count

    def begin(self) -> None: ...

    def choose(self, sequence: Sequence, row: int) -> None: ...

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        found = logits[row : row + sequence.rows].tolist()
        seen = sequence.num_computed + sequence.scheduled
        expected = [toy_logits(sequence.tokens[: seen - sequence.rows + 1 + i]) for i in range(sequence.rows)]
        assert Tensor.from_list(found).tolist() == Tensor.from_list(expected).tolist(), "other logits than a cold run's"
        self.left -= sequence.rows
        if self.left > 0 and sequence.outputs == 1:
            sequence.tokens.append(found[-1].index(max(found[-1])) % 2)
        return self.left <= 0

    def fail(self, error: BaseException) -> None: ...

    def expire(self, sequence: Sequence) -> None: ...

    def finish(self) -> None: ...


class Keepers(RuleBasedStateMachine):
    """Prompts that begin alike, in a cache that is mostly too small, by whatever way they come to their end."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.salts: dict[Sequence, str | None] = {}

    @initialize(most=st.integers(0, 7), num_blocks=st.integers(13, 40), chunk=st.sampled_from([1, 2, 7, 12]))
    def begin(self, most: int, num_blocks: int, chunk: int) -> None:
        self.most = most
        self.model = ToyModel(max_positions=36)
        self.cache = ToyCache(num_blocks, SIZE, SLOTS + most)
        self.manager = CacheManager(self.cache, SLOTS)
        self.runner = Runner(self.model, self.cache, max_tokens=16, max_sequences=SLOTS, max_length=36)  # type: ignore[arg-type]
        self.scheduler = Scheduler(self.manager, max_tokens=16, max_outputs=6, prefill_chunk=chunk)
        self.root = root_key(self.cache)

    @rule(
        target=sequences,
        tokens=TOKENS,
        salt=SALTS,
        n=st.integers(1, 3),
        count=st.integers(1, 9),
        scored=st.booleans(),
        turns=st.lists(st.integers(1, 26), max_size=3).map(sorted),
    )
    def submit(self, tokens: list[int], salt: str | None, n: int, count: int, scored: bool, turns: list[int]) -> Any:
        family = object() if n > 1 else None
        for _ in range(n):
            outputs = len(tokens) if scored and n == 1 else 1
            consumer: Any = Answering(len(tokens) if outputs > 1 else count)
            made = Sequence(consumer, array("i", tokens), outputs, family, salt=salt, turns=tuple(turns))
            self.salts[made] = salt
            self.scheduler.add(made)
        return made

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        """Do what a worker does in a step."""
        for _ in range(count):
            plan = list(self.scheduler.schedule())
            if not plan:
                return
            logits = self.runner.forward(plan)
            plan += self.scheduler.share_prompt()
            finished: list[Sequence] = []
            self.runner.consume(plan, logits, finished)
            self.manager.keep(plan)
            self._remove(finished)
            self.scheduler.plan.clear()
            self._check()

    @rule()
    def step_that_fails(self) -> None:
        plan = list(self.scheduler.schedule())
        self.model.poison, self.model.error = 1, ZeroDivisionError()
        try:
            self.runner.forward(plan)
        except ZeroDivisionError:
            self._remove(plan)
        else:  # none of them had that token
            self._remove(plan)
        self.model.poison = None
        self.scheduler.plan.clear()

    @rule(s=sequences)
    def cancel(self, s: Any) -> None:
        if s is not None and s.status is not Status.FINISHED:
            self.scheduler.remove(s)
            assert (len(s.blocks), s.slot, s.cuts) == (0, NO_SLOT, [])

    def _remove(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            self.scheduler.remove(sequence)

    @invariant()
    def all_is_accounted_for(self) -> None:
        if hasattr(self, "manager"):  # it begins after this was looked at once
            self._check()

    def _check(self) -> None:
        states, running = self.manager.states, self.scheduler.running
        kept = {state.slot: state for state in states.kept._kept.values()}
        assert len(kept) == len(states.kept) <= self.most == states.most
        held, free = [s.slot for s in running], states._free
        assert sorted([*held, *kept, *free]) == list(range(SLOTS + self.most)), "a slot is lost, or has two owners"
        assert states.num_free == SLOTS - len(held) and states._lent == 0
        assert states._rolling == sum(bool(s.rolling) for s in running) <= self.most // 2
        for slot, state in kept.items():
            tokens = self.cache.states[slot]
            assert len(tokens) == len(state.chain) * SIZE
            assert self._key(tokens, state.chain) == state.chain[-1], "states of other tokens than it is known for"
            blocks = [self.manager.known.find(key) for key in state.chain]
            assert None not in blocks, "states that nobody can come to"
            assert [token for block in blocks for token in self.cache.blocks[block]] == tokens  # type: ignore[index]
        owners: dict[int, int] = {}
        for s in running:
            for block in s.blocks:
                owners[block] = owners.get(block, 0) + 1
            if s.num_computed:
                assert self.cache.states[s.slot] == s.tokens[: s.num_computed].tolist()
        assert [self.manager.owners(b) for b in range(self.cache.num_blocks)] == [
            owners.get(b, 0) for b in range(self.cache.num_blocks)
        ]
        assert self.manager.num_free == self.cache.num_blocks - len(owners)

    def _key(self, tokens: list[int], chain: tuple[bytes, ...]) -> bytes | None:
        for salt in (None, "a"):
            key = BlockKeys(salt).key(len(chain) - 1, array("i", tokens), SIZE, self.root)
            if key == chain[-1]:
                return key
        return None

    def teardown(self) -> None:
        if not hasattr(self, "manager"):
            return
        for _ in range(400):
            if not self.scheduler.busy:
                break
            self.step(1)
        assert not self.scheduler.busy
        assert (self.manager.num_free, self.manager.num_free_slots) == (self.cache.num_blocks, SLOTS)


TestKeepers = Keepers.TestCase
TestKeepers.settings = settings(stateful_step_count=30)
