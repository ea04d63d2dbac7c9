from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import PagedToyCache, ToyCache

from pio.engine.cache_manager import CacheManager
from pio.engine.scheduler import FIRST_SHARE, Scheduler
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


def sequence(
    name: int, prompt: int, answer: int, scored: int = 0, family: object | None = None, priority: int = 0
) -> Sequence:
    """A sequence that wants an answer, or the logits of the last tokens of its prompt."""
    goal: Any = Goal(name, answer, scored > 0)
    return Sequence(goal, array("i", range(prompt)), outputs=scored or 1, family=family, priority=priority)


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


def test_decodes_come_before_prompts_and_those_with_least_left_first() -> None:
    scheduler = make()
    for name, prompt in enumerate((2, 9, 3)):
        scheduler.add(sequence(name, prompt, 5))
    assert advance(scheduler) == [(0, 2), (2, 3), (1, 1)]
    assert advance(scheduler) == [(0, 1), (2, 1), (1, 6)]
    assert advance(scheduler) == [(0, 1), (2, 1), (1, 2)]
    assert advance(scheduler) == [(0, 1), (1, 1), (2, 1)]  # as they came


def test_equal_prompts_are_computed_one_after_the_other() -> None:
    """Side by side all would have to wait for the last."""
    scheduler = make(num_blocks=20, max_sequences=4)
    for name in range(3):
        scheduler.add(sequence(name, 12, 9))
    firsts: dict[int, int] = {}
    for step in range(9):
        for name, _ in advance(scheduler):
            if scheduler.running[name].num_computed >= 12:
                firsts.setdefault(name, step)
    assert firsts == {0: 1, 1: 3, 2: 5}


def test_a_short_prompt_soon_passes_a_long_one() -> None:
    scheduler = make(num_blocks=40)
    scheduler.add(sequence(0, 90, 2))
    assert advance(scheduler) == [(0, 6)]
    scheduler.add(sequence(1, 5, 2))
    assert advance(scheduler) == [(0, 1), (1, 5)]
    assert advance(scheduler) == [(1, 1), (0, 6)]


def test_the_oldest_prompt_goes_on_under_endless_short_ones() -> None:
    scheduler = make(num_blocks=40, max_tokens=20, prefill_chunk=8)
    scheduler.add(sequence(0, 30, 2))
    steps = 0
    while scheduler.busy and 0 in [name_of(s) for s in (*scheduler.running, *scheduler.waiting)]:
        for name in range(2):
            scheduler.add(sequence(1 + 2 * steps + name, 4, 1))
        advance(scheduler)
        steps += 1
    assert steps <= 30 / (8 // FIRST_SHARE) + 2


def test_twenty_tokens_behind_eight_thousand_are_read_within_three_chunks() -> None:
    scheduler = make(num_blocks=600, block_size=16, max_tokens=520, prefill_chunk=512)
    scheduler.add(sequence(0, 8192, 2))
    advance(scheduler)
    scheduler.add(sequence(1, 20, 2))
    steps = [advance(scheduler) for _ in range(3)]
    assert (1, 1) in steps[1]  # its first token came with the step before
    assert sum(count for step in steps for name, count in step if name == 0) > 2 * 512


def test_a_running_answer_is_in_every_step_under_endless_long_prompts() -> None:
    scheduler = make(num_blocks=900, block_size=16, max_sequences=4, max_tokens=520, prefill_chunk=512)
    scheduler.add(sequence(0, 5, 200))
    assert advance(scheduler) == [(0, 5)]
    for name in range(1, 120):
        scheduler.add(sequence(name, 3000, 3))
        step = dict(advance(scheduler))
        assert step[0] == 1 and sum(step.values()) >= 512


def test_answers_to_one_prompt_hold_nobody_up_and_find_it_wherever_they_stand() -> None:
    scheduler, family = make(num_blocks=60, max_sequences=6, max_outputs=8), object()
    for name in range(3):
        scheduler.add(sequence(name, 40, 3, family=family))
    advance(scheduler)
    scheduler.add(sequence(3, 5, 2))
    scheduler.add(sequence(4, 30, 2, priority=1))  # before them in the line
    read: Counter[int] = Counter()
    for _ in range(40):
        for name, count in advance(scheduler):
            read[name] += count
    assert not scheduler.busy
    assert read[1] < 20 and read[2] < 20, "they go on from the prompt of the first"


def test_a_scored_prompt_goes_on_under_endless_shorter_ones() -> None:
    scheduler = make(num_blocks=60, max_sequences=8, max_outputs=8, max_tokens=16, prefill_chunk=16)
    scheduler.add(sequence(0, 30, 0, scored=30))
    for name in range(1, 60):
        scheduler.add(sequence(name, 4, 0, scored=4))
        advance(scheduler)
    assert 0 not in [name_of(s) for s in (*scheduler.running, *scheduler.waiting)]


def test_who_has_a_higher_priority_goes_first_where_not_all_can_run() -> None:
    scheduler = make(max_sequences=1)
    for name, priority in enumerate((0, 0, 2, 1, 2)):
        scheduler.add(sequence(name, 2, 1, priority=priority))
    order = [name for _ in range(5) for name, _ in advance(scheduler)]
    assert order == [2, 4, 3, 0, 1]


def test_the_last_in_line_gives_way_to_a_later_one_of_higher_priority() -> None:
    scheduler = make(num_blocks=4, block_size=2, max_tokens=8, prefill_chunk=8)
    scheduler.add(sequence(0, 2, 6))
    assert advance(scheduler) == [(0, 2)]
    scheduler.add(sequence(1, 2, 6, priority=1))
    for _ in range(4):  # then a fifth block is missing
        advance(scheduler)
    assert [name_of(s) for s in scheduler.running] == [1]
    assert [name_of(s) for s in scheduler.waiting] == [0]


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
    assert advance(scheduler) == [(0, 4), (3, 2)]  # of a chunk of 6; whoever waits for the prompt lets others pass
    assert [s.consumer.begun for s in scheduler.waiting] == [False] * 2  # type: ignore[attr-defined]
    assert advance(scheduler) == [(3, 1), (0, 5), (1, 5), (2, 5)]
    answers = scheduler.running[:3]
    assert [s.consumer.begun for s in answers[1:]] == [True, True]  # type: ignore[attr-defined]
    assert [(s.row, s.rows, s.num_computed) for s in answers] == [(0, 1, 9)] * 3
    tables = [list(s.blocks) for s in answers]
    assert tables[0] == tables[1] == tables[2]
    assert [scheduler.cache.owners(block) for block in tables[0]] == [3, 3, 3]
    assert advance(scheduler) == [(0, 1), (1, 1), (2, 1), (3, 1)]
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
    st.lists(
        st.tuples(st.integers(1, 16), st.integers(1, 12), st.integers(-16, 3), st.integers(-1, 1)),
        min_size=1,
        max_size=9,
    ),
    st.integers(7, 16),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 3),
    st.sampled_from([ToyCache, PagedToyCache]),
)
def test_everything_ends_and_every_limit_holds(
    requests: list[tuple[int, int, int, int]],
    num_blocks: int,
    sequences: int,
    chunk: int,
    spare: int,
    kept: type[ToyCache],
) -> None:
    """Requests have a prompt, an answer, a number of answers and a priority.

    Where the number is below 1 that many logits of the prompt are wanted.

    All prompts begin alike, and without states what one computes others find, who wait for it and let others pass.
    """
    cache = CacheManager(kept(num_blocks, 4), sequences)  # the longest, 16 + 11 tokens, fits alone
    limits = {"max_tokens": sequences + spare, "max_outputs": sequences + spare // 2, "prefill_chunk": chunk}
    scheduler, count = Scheduler(cache, **limits), 0
    for prompt, answer, answers, priority in requests:
        family = object() if answers > 1 else None
        for _ in range(max(1, answers)):
            scored = min(1 - answers, prompt) if answers < 1 else 0
            scheduler.add(sequence(count, prompt, answer, scored, family, priority))
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
        for line in (scheduler.running, scheduler.waiting):
            orders = [s.order for s in line]
            assert orders == sorted(orders)
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
