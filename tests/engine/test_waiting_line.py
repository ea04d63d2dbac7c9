"""Who goes first: by arrival, and by a head start for each step of priority."""

from __future__ import annotations

from array import array
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pio.engine.sequence import Sequence
from pio.engine.waiting_line import HEAD_START, WaitingLine


class Clock:
    """Goes on when it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def waiter(priority: int = 0) -> Sequence:
    consumer: Any = None
    return Sequence(consumer, array("i", [1]), priority=priority)


def test_a_step_of_priority_is_worth_so_many_seconds() -> None:
    clock = Clock()
    line = WaitingLine(clock)
    low = waiter()
    line.add(low)
    clock.now = HEAD_START - 0.5
    soon = waiter(1)
    line.add(soon)
    assert list(line) == [soon, low]
    clock.now = HEAD_START + 0.5
    late = waiter(1)
    line.add(late)
    assert list(line) == [soon, low, late]  # however many of higher priority come, its turn comes too


@given(
    st.lists(
        st.tuples(st.sampled_from(("add", "remove", "take", "back")), st.integers(-2, 2), st.integers(0, 99)),
        max_size=60,
    )
)
def test_the_line_is_what_a_sorted_list_is(steps: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    line = WaitingLine(clock)
    came: dict[Sequence, float] = {}
    taken: list[Sequence] = []
    inside: list[Sequence] = []
    for step, priority, number in steps:
        clock.now += number / 10
        if step == "add":
            new = waiter(priority)
            came[new] = clock.now - HEAD_START * priority
            line.add(new)
            inside.append(new)
        elif step == "remove" and inside:
            line.remove(inside.pop(number % len(inside)))
        elif step == "take" and inside:
            first = next(iter(line))
            line.remove(first)
            inside.remove(first)
            taken.append(first)
        elif step == "back" and taken:
            last = taken.pop()
            line.put_back(last)
            inside.append(last)
        assert len(line) == len(inside)
        found = list(line)
        for level in range(-2, 3):
            mine = [s for s in found if s.priority == level]
            assert [s.order for s in mine] == sorted(s.order for s in mine)
        assert {id(s) for s in found} == {id(s) for s in inside}
        if not taken:
            assert [came[s] for s in found] == sorted(came[s] for s in inside)
