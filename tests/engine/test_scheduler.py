from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import ToyCache

from pio.engine.cache_manager import CacheManager
from pio.engine.scheduler import Scheduler
from pio.engine.sequence import Sequence, Status
from pio.errors import ConfigError


@dataclass
class Goal:
    """Stands for a consumer: how many tokens the answer gets, or that only the prompt is wanted."""

    name: int
    answer: int
    scored: bool
    dead: bool = False
    begun: bool = False

    def begin(self) -> None:
        self.begun = True


def sequence(name: int, prompt: int, answer: int, scored: int = 0, family: object | None = None) -> Sequence:
    """A sequence that wants an answer, or the logits of the last tokens of its prompt."""
    goal: Any = Goal(name, answer, scored > 0)
    return Sequence(goal, array("i", range(prompt)), outputs=scored or 1, family=family)


def is_scored(s: Sequence) -> bool:
    goal: Any = s.consumer
    return goal.scored


def name_of(s: Sequence) -> int:
    goal: Any = s.consumer
    return goal.name


def make(num_blocks: int = 8, block_size: int = 4, max_sequences: int = 3, **limits: int) -> Scheduler:
    defaults = {"max_tokens": 10, "max_outputs": 4, "prefill_chunk": 6}
    return Scheduler(CacheManager(ToyCache(num_blocks, block_size), max_sequences), **(defaults | limits))


def advance(scheduler: Scheduler) -> list[tuple[int, int]]:
    """Do a step as the worker does; return who got how many tokens."""
    plan = [(s, s.scheduled) for s in (*scheduler.schedule(), *scheduler.share_prompt())]
    for s, count in plan:
        s.num_computed += count
        goal: Any = s.consumer
        if s.pending == 0 and not is_scored(s):
            s.tokens.append(7)
        if s.num_computed >= s.prompt_length + (goal.answer - 1 if not is_scored(s) else 0):
            scheduler.remove(s)
    return [(name_of(s), count) for s, count in plan]


def test_decodes_come_before_prompts_and_prompts_in_order() -> None:
    scheduler = make()
    for name, prompt in enumerate((2, 9, 3)):
        scheduler.add(sequence(name, prompt, 5))
    assert advance(scheduler) == [(0, 2), (1, 4)]
    assert advance(scheduler) == [(0, 1), (1, 5), (2, 1)]
    assert advance(scheduler) == [(0, 1), (1, 1), (2, 2)]
    assert advance(scheduler) == [(0, 1), (1, 1), (2, 1)]


def test_a_long_prompt_is_not_overtaken() -> None:
    scheduler = make(num_blocks=4)
    scheduler.add(sequence(0, 7, 3))
    scheduler.add(sequence(1, 13, 3))  # needs all four blocks
    scheduler.add(sequence(2, 1, 3))  # would fit beside the first
    steps = [advance(scheduler) for _ in range(12)]
    order = list(dict.fromkeys(name for step in steps for name, _ in step))
    assert order == [0, 1, 2]
    assert not scheduler.busy


def test_the_youngest_gives_way() -> None:
    scheduler = make(num_blocks=4, block_size=2, max_tokens=8, prefill_chunk=8)
    old, young = sequence(0, 2, 6), sequence(1, 2, 4)
    scheduler.add(old)
    scheduler.add(young)
    assert advance(scheduler) == [(0, 2), (1, 2)]
    assert advance(scheduler) == [(0, 1), (1, 1)]  # both take a second block
    assert advance(scheduler) == [(0, 1), (1, 1)]
    assert advance(scheduler) == [(0, 1)]  # no fifth block
    assert (young.status, young.num_computed, len(young.blocks)) == (Status.WAITING, 0, 0)
    assert advance(scheduler) == [(0, 1)]
    assert advance(scheduler) == [(0, 1)]
    assert advance(scheduler) == [(1, 5)]  # once more from its first token
    assert not scheduler.busy
    assert scheduler.cache.num_free == 4


def test_scored_prompts_leave_running_answers_their_rows() -> None:
    scheduler = make(num_blocks=20, max_outputs=4, prefill_chunk=10)
    scheduler.add(sequence(0, 1, 9))
    scheduler.add(sequence(1, 8, 0, scored=8))
    assert advance(scheduler) == [(0, 1), (1, 3)]
    assert advance(scheduler) == [(0, 1), (1, 3)]
    assert advance(scheduler) == [(0, 1), (1, 2)]


def test_answers_to_one_prompt_wait_for_it_and_go_on_from_there() -> None:
    scheduler, family = make(num_blocks=20, max_sequences=4), object()
    for name in range(3):
        scheduler.add(sequence(name, 9, 4, family=family))
    scheduler.add(sequence(3, 2, 4))
    assert advance(scheduler) == [(0, 6)]  # of a chunk of 6
    assert [s.consumer.begun for s in scheduler.waiting] == [False] * 3  # type: ignore[attr-defined]
    assert advance(scheduler) == [(0, 3), (1, 3), (2, 3)]
    assert [s.consumer.begun for s in scheduler.running[1:]] == [True, True]  # type: ignore[attr-defined]
    assert [(s.row, s.rows, s.num_computed) for s in scheduler.running] == [(0, 1, 9)] * 3
    tables = [list(s.blocks) for s in scheduler.running]
    assert tables[0] == tables[1] == tables[2]
    assert [scheduler.cache.owners(block) for block in tables[0]] == [3, 3, 3]
    assert advance(scheduler) == [(0, 1), (1, 1), (2, 1), (3, 2)]
    tables = [list(s.blocks) for s in scheduler.running[:3]]
    assert tables[0][:2] == tables[1][:2] == tables[2][:2]
    assert len({table[2] for table in tables}) == 3, "the block that all three write to is still one"
    assert scheduler.cache.num_free == 20 - (2 + 3 + 1)


def test_answers_that_find_no_room_compute_the_prompt_for_themselves() -> None:
    scheduler, family = make(max_sequences=2, num_blocks=20), object()
    for name in range(4):
        scheduler.add(sequence(name, 5, 3, family=family))
    assert advance(scheduler) == [(0, 5), (1, 5)]
    assert [advance(scheduler) for _ in range(2)] == [[(0, 1), (1, 1)]] * 2
    assert advance(scheduler) == [(2, 5), (3, 5)]  # the third does, and the last goes on from it
    scheduler, family = make(num_blocks=3), object()
    for name in range(2):
        scheduler.add(sequence(name, 8, 2, family=family))
    assert advance(scheduler) == [(0, 6)]
    assert advance(scheduler) == [(0, 2)]  # both would need a third block
    assert advance(scheduler) == [(0, 1)]
    assert advance(scheduler) == [(1, 6)]
    assert scheduler.cache.num_shared == 0


def test_nobody_goes_on_for_a_request_that_is_over() -> None:
    scheduler, family = make(), object()
    for name in range(2):
        scheduler.add(sequence(name, 3, 3, family=family))
    scheduler.schedule()
    for s in (*scheduler.running, *scheduler.waiting):
        s.consumer.dead = True  # type: ignore[misc]
    assert scheduler.share_prompt() == []
    for s in (*scheduler.running, *scheduler.waiting):
        scheduler.remove(s)
    assert (scheduler.cache.num_free, scheduler.cache.num_free_slots) == (8, 3)


@given(
    st.lists(st.tuples(st.integers(1, 16), st.integers(1, 12), st.integers(-16, 3)), min_size=1, max_size=9),
    st.integers(7, 16),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_everything_ends_and_every_limit_holds(
    requests: list[tuple[int, int, int]], num_blocks: int, sequences: int, chunk: int, spare: int
) -> None:
    """Requests have a prompt, an answer and a number of answers; below 1 that many logits of the prompt are wanted."""
    cache = CacheManager(ToyCache(num_blocks, 4), sequences)  # the longest, 16 + 11 tokens, fits alone
    limits = {"max_tokens": sequences + spare, "max_outputs": sequences + spare // 2, "prefill_chunk": chunk}
    scheduler, count = Scheduler(cache, **limits), 0
    for prompt, answer, answers in requests:
        family = object() if answers > 1 else None
        for _ in range(max(1, answers)):
            scored = min(1 - answers, prompt) if answers < 1 else 0
            scheduler.add(sequence(count, prompt, answer, scored, family))
            count += 1
    started: list[int] = []
    for _ in range(3000):
        if not scheduler.busy:
            break
        plan = list(scheduler.schedule())
        assert plan, "sequences are left and nothing is done"
        assert sum(s.scheduled for s in plan) <= limits["max_tokens"]
        wanted = [range(len(s.tokens) - s.outputs, len(s.tokens)) for s in plan]
        rows = [sum(s.num_computed + i in at for i in range(s.scheduled)) for s, at in zip(plan, wanted, strict=True)]
        assert rows == [s.rows for s in plan]
        assert sum(rows) <= limits["max_outputs"]
        prompts = [s for s in plan if not s.decodes]
        assert sum(s.scheduled for s in prompts) <= chunk
        _check_holdings(scheduler, plan)
        plan += scheduler.share_prompt()
        assert len({id(s) for s in plan}) == len(plan) <= len(scheduler.running) <= sequences
        assert all(s.status is Status.RUNNING for s in plan)
        names = [name_of(s) for s in (*scheduler.running, *scheduler.waiting)]
        assert names == sorted(names)
        started += [name_of(s) for s in plan]
        _finish(scheduler, plan)
    assert not scheduler.busy
    assert (cache.num_free, cache.num_free_slots, cache.num_shared) == (num_blocks, sequences, 0)
    first = list(dict.fromkeys(started))
    assert sorted(first) == list(range(count))


def _check_holdings(scheduler: Scheduler, plan: list[Sequence]) -> None:
    """Every block is held by those that have it in their tables, and what the step writes by one alone."""
    cache = scheduler.cache
    held = Counter(b for s in scheduler.running for b in s.blocks)
    assert [held[b] for b in range(cache.num_blocks)] == [cache.owners(b) for b in range(cache.num_blocks)]
    assert len(held) == cache.num_blocks - cache.num_free
    for s in plan:
        assert len(s.blocks) * 4 >= s.num_computed + s.scheduled
        written = s.blocks[s.num_computed // 4 : -(-(s.num_computed + s.scheduled) // 4)]
        assert [held[b] for b in written] == [1] * len(written)


def _finish(scheduler: Scheduler, plan: list[Sequence]) -> None:
    for s in list(plan):
        s.num_computed += s.scheduled
        goal: Any = s.consumer
        if s.pending == 0:
            if is_scored(s) or len(s.tokens) - s.prompt_length == goal.answer - 1:
                scheduler.remove(s)
            else:
                s.tokens.append(7)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_sequences": 0}, "max_batch_sequences=0"),
        ({"max_tokens": 2}, "max_batch_tokens=2.*at least 3"),
        ({"max_outputs": 2}, "max_batch_outputs=2.*at least 3"),
        ({"prefill_chunk": 0}, "prefill_chunk=0"),
    ],
)
def test_limits_that_cannot_work_are_refused(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(**limits)
