from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.engine.block_manager import BlockManager
from pio.engine.scheduler import Scheduler
from pio.engine.sequence import Sequence, Status
from pio.errors import ConfigError


@dataclass
class Goal:
    """Stands for a consumer: how many tokens the answer gets, or that the prompt is scored."""

    name: int
    answer: int
    scored: bool


def sequence(name: int, prompt: int, answer: int, scored: bool = False) -> Sequence:
    goal: Any = Goal(name, answer, scored)
    return Sequence(goal, array("i", range(prompt)), outputs=prompt if scored else 1)


def is_scored(s: Sequence) -> bool:
    goal: Any = s.consumer
    return goal.scored


def name_of(s: Sequence) -> int:
    goal: Any = s.consumer
    return goal.name


def make(num_blocks: int = 8, block_size: int = 4, **limits: int) -> Scheduler:
    defaults = {"max_tokens": 10, "max_sequences": 3, "max_outputs": 4, "prefill_chunk": 6}
    return Scheduler(BlockManager(num_blocks, block_size), **(defaults | limits))


def advance(scheduler: Scheduler) -> list[tuple[int, int]]:
    """Do a step as the worker does; return who got how many tokens."""
    plan = [(s, s.scheduled) for s in scheduler.schedule()]
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
    assert scheduler.blocks.num_free == 4


def test_scored_prompts_leave_running_answers_their_rows() -> None:
    scheduler = make(num_blocks=20, max_outputs=4, prefill_chunk=10)
    scheduler.add(sequence(0, 1, 9))
    scheduler.add(sequence(1, 8, 0, scored=True))
    assert advance(scheduler) == [(0, 1), (1, 3)]
    assert advance(scheduler) == [(0, 1), (1, 3)]
    assert advance(scheduler) == [(0, 1), (1, 2)]


@given(
    st.lists(st.tuples(st.integers(1, 16), st.integers(1, 12), st.booleans()), min_size=1, max_size=9),
    st.integers(7, 16),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_everything_ends_and_every_limit_holds(
    requests: list[tuple[int, int, bool]], num_blocks: int, sequences: int, chunk: int, spare: int
) -> None:
    blocks = BlockManager(num_blocks, 4)  # the longest, 16 + 11 tokens, fits alone
    limits = {"max_tokens": sequences + spare, "max_outputs": sequences + spare // 2, "prefill_chunk": chunk}
    scheduler = Scheduler(blocks, max_sequences=sequences, **limits)
    for name, (prompt, answer, scored) in enumerate(requests):
        scheduler.add(sequence(name, prompt, answer, scored))
    started: list[int] = []
    for _ in range(3000):
        if not scheduler.busy:
            break
        plan = scheduler.schedule()
        assert plan, "sequences are left and nothing is done"
        assert len({id(s) for s in plan}) == len(plan) <= len(scheduler.running) <= sequences
        assert sum(s.scheduled for s in plan) <= limits["max_tokens"]
        rows = [s.scheduled if is_scored(s) else s.scheduled == s.pending for s in plan]
        assert sum(rows) <= limits["max_outputs"]
        prompts = [s for s in plan if is_scored(s) or s.pending > 1]
        assert sum(s.scheduled for s in prompts) <= chunk
        assert all(len(s.blocks) * 4 >= s.num_computed + s.scheduled for s in plan)
        assert all(s.status is Status.RUNNING for s in plan)
        held = [b for s in scheduler.running for b in s.blocks]
        assert len(held) == len(set(held)) == num_blocks - blocks.num_free
        names = [name_of(s) for s in (*scheduler.running, *scheduler.waiting)]
        assert names == sorted(names)
        started += [name_of(s) for s in plan]
        _finish(scheduler, plan)
    assert not scheduler.busy
    assert blocks.num_free == num_blocks
    first = list(dict.fromkeys(started))
    assert sorted(first) == list(range(len(requests)))


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
