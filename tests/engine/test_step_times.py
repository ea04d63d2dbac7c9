from __future__ import annotations

import pytest

from pio.engine.drafts.step_times import OUTLIER, SLOWER, StepTimes


def noted(*steps: tuple[int, float]) -> StepTimes:
    times = StepTimes()
    for tokens, seconds in steps:
        times.note(tokens, seconds)
    return times


def test_nothing_is_expected_before_the_first_step() -> None:
    times = StepTimes()
    assert (times.expected(3), times.least(3), times.largest, times.count(1)) == (0.0, 0.0, 0, 0)


def test_what_was_not_measured_lies_between_neighbours_or_grows_with_its_tokens() -> None:
    times = noted((4, 2.0), (8, 3.0))
    assert [times.expected(n) for n in (1, 4, 5, 6, 8)] == [2.0, 2.0, 2.25, 2.5, 3.0]
    assert times.expected(24) == pytest.approx(9.0)
    assert [times.least(n) for n in (4, 5, 8, 9)] == [0.0, 2.0, 2.0, 3.0]
    assert times.largest == 8


def test_the_first_step_of_a_size_may_be_slow_for_no_reason_of_its_own() -> None:
    times = noted((1, 9.0))
    assert times.expected(1) == 9.0
    times.note(1, 2.0)
    assert times.expected(1) == 2.0
    assert noted((1, 2.0), (1, 9.0)).expected(1) == 2.0


def test_what_holds_up_the_first_step_of_a_size_counts_for_little() -> None:
    times = noted((1, 1.0), (1, 1.0), (4, 500.0))
    assert times.expected(4) == OUTLIER * 4.0
    times.note(2, 500.0)
    assert times.expected(2) == pytest.approx(OUTLIER * (1.0 + (8.0 - 1.0) / 3))
    times.note(4, 2.0)
    assert times.expected(4) == 2.0


def test_a_single_slow_step_counts_for_little_and_lasting_ones_are_believed() -> None:
    times = noted(*[(1, 1.0)] * 10)
    times.note(1, 1000.0)
    assert 1.0 < times.expected(1) <= 1.0 + SLOWER * (OUTLIER - 1.0) + 1e-9
    for _ in range(150):
        times.note(1, 3.0)
    assert times.expected(1) == pytest.approx(3.0, rel=0.01)
    for _ in range(20):
        times.note(1, 1.0)
    assert times.expected(1) == pytest.approx(1.0, rel=0.01)


def test_sizes_have_counts_and_ages() -> None:
    times = noted((1, 1.0), (2, 1.0), (1, 1.0), (1, 1.0))
    assert (times.count(1), times.count(2), times.count(3)) == (3, 1, 0)
    assert (times.age(1), times.age(2)) == (0, 2)


def test_what_slows_steps_without_drafts_slows_all() -> None:
    """Whichever of them is seen; what has become slower with the others is not slowed again when it is seen."""
    times = noted(*[(1, 1.0), (4, 2.0)] * 5)
    for _ in range(5):
        times.note(8, 4.0, plain=False)
    for _ in range(300):
        times.note(1, 3.0)
    assert [times.expected(n) for n in (1, 4, 8)] == pytest.approx([3.0, 6.0, 12.0], rel=0.01)
    for _ in range(300):
        times.note(4, 6.0)
    assert [times.expected(n) for n in (1, 4, 8)] == pytest.approx([3.0, 6.0, 12.0], rel=0.01)
    for _ in range(300):
        times.note(8, 24.0, plain=False)
    assert [times.expected(n) for n in (1, 4, 8)] == pytest.approx([3.0, 6.0, 24.0], rel=0.01)
