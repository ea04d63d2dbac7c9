"""How much is drafted, by a clock that tests set: the best there is once times are known, and never at a great loss."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.engine.drafts.gate import BESIDE, HELD, KEPT, LIKELY, MARGIN, PLAIN, SHARE, SIZES, MeasuredGate

chances = st.lists(st.floats(0.0, 1.0), max_size=5).map(lambda found: sorted(found, reverse=True))


def informed(seconds: dict[int, float], sequences: int) -> MeasuredGate:
    """A gate that has measured these sizes, last the one without drafts, and may lose a little."""
    gate = MeasuredGate()
    for size, took in seconds.items():
        for _ in range(PLAIN):
            gate.note(size, size, size, took)
    for _ in range(PLAIN):
        gate.note(sequences, sequences, sequences, seconds[sequences])
    assert gate.balance > 0
    return gate


@given(st.integers(1, 4), st.lists(chances, min_size=1, max_size=3), st.integers(0, 12), st.data())
def test_with_known_times_the_choice_is_the_best_of_all(
    sequences: int, drafts: list[list[float]], most: int, data: st.DataObject
) -> None:
    drafts = drafts[:sequences]
    sizes = [sequences, *(size for size in SIZES if size > sequences and size <= 20)]
    growth = data.draw(st.lists(st.floats(1.0, 2.0), min_size=len(sizes), max_size=len(sizes)))
    seconds, took = dict[int, float](), 1.0
    for size, factor in zip(sizes, growth, strict=True):
        seconds[size] = took = took * factor
    gate = informed(seconds, sequences)

    def speed(counts: tuple[int, ...]) -> float:
        size = sequences + sum(counts)
        if size not in seconds or sum(counts) > most:
            return 0.0
        return (sequences + sum(sum(draft[:n]) for draft, n in zip(drafts, counts, strict=True))) / seconds[size]

    best = max(map(speed, product(*(range(len(draft) + 1) for draft in drafts))))
    plain = sequences / seconds[sequences]
    counts = gate.choose(sequences, 0, drafts, most)
    if best > plain * MARGIN * (1 + 1e-9):
        assert speed(tuple(counts)) == pytest.approx(best)
    elif best < plain * MARGIN * (1 - 1e-9):
        assert counts == [0] * len(drafts)


def test_nothing_is_drafted_before_the_time_without_drafts_is_known_and_from_time_to_time_it_is_taken_anew() -> None:
    gate = MeasuredGate()
    sure = [[1.0] * 15]
    for _ in range(PLAIN):
        assert gate.choose(1, 0, sure, 15) == [0]
        gate.note(1, 1, 1, 1.0)
    drafted = 0
    while gate.choose(1, 0, sure, 15) != [0]:
        (count,) = gate.choose(1, 0, sure, 15)
        gate.note(1, 1 + count, 1 + count, 1.0)
        drafted += 1
    assert drafted == KEPT + 1
    gate.note(1, 1, 1, 1.0)
    assert gate.choose(1, 0, sure, 15) != [0]
    assert gate.choose(2, 0, sure, 15) == [0], "two sequences at once were never measured"


def test_sizes_are_tried_in_turn_where_what_they_may_cost_can_be_afforded() -> None:
    gate = informed({1: 1.0}, 1)
    tried: list[int] = []
    while len(tried) < 12:
        (count,) = gate.choose(1, 0, [[0.999**n for n in range(1, 64)]], 63)
        tried.append(1 + count)
        gate.note(1, 1 + count, 1 + count, 1.0 + 0.01 * count)
    assert tried[0] == 2
    assert max(tried) >= 32 and all(size <= 2 * max(tried[:i]) for i, size in enumerate(tried) if i)


def test_a_size_is_not_tried_on_a_small_chance() -> None:
    gate = informed({1: 1.0}, 1)
    for _ in range(100):
        (count,) = gate.choose(1, 0, [[0.03, 0.01]], 15)
        assert count == 0
        gate.note(1, 1, 1, 1.0)


def test_drafts_that_never_come_cost_no_more_than_they_may() -> None:
    """All say that they are certain, none comes, and a step with them takes twice as long."""
    gate = MeasuredGate()
    took = answers = 0.0
    for _ in range(4000):
        (count,) = gate.choose(1, 0, [[1.0] * 15], 15)
        seconds = 2.0 if count else 1.0
        gate.note(1, 1 + count, 1, seconds)
        took, answers = took + seconds, answers + 1
    assert took <= answers * (1 + 2 * SHARE) + 2


def test_what_holds_up_a_step_with_drafts_does_not_keep_others_from_being_tried() -> None:
    """The first of its size among them, of which nothing is known: other programs run, a kernel is loaded."""
    gate = informed({1: 1.0}, 1)
    plain = 0
    for held_up in (3000.0, 1.1, 1.1):
        while not (count := gate.choose(1, 0, [[1.0] * 15], 15)[0]):
            gate.note(1, 1, 1, 1.0)
            plain += 1
        gate.note(1, 1 + count, 1 + count, held_up)
    assert plain < 200 and gate.choose(1, 0, [[1.0] * 15], 15)[0] > 1


def test_what_drafts_have_gained_may_be_lost_again_only_for_a_while() -> None:
    gate = informed({1: 1.0, 8: 2.0, 16: 3.0}, 1)
    for _ in range(100):
        gate.note(1, 16, 16, 3.0)
    assert gate.balance == pytest.approx(HELD * 3.0)
    for _ in range(300):
        gate.note(1, 1, 1, 1.0)
    assert gate.balance < 3.0


def test_the_likeliest_tokens_of_all_sequences_are_taken() -> None:
    gate = informed({3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0, 8: 9.0}, 3)
    assert gate.choose(3, 0, [[0.9, 0.2], [0.5], [0.8, 0.7, 0.1]], 99) == [1, 0, 2]
    assert gate.choose(3, 0, [[0.9, 0.2], [0.5], [0.8, 0.7, 0.1]], 2) == [1, 0, 1]


def test_beside_prompts_likely_tokens_are_drafted_few_as_they_are() -> None:
    gate = MeasuredGate()
    drafts = [[0.95, 0.9, 0.6, 0.4], [0.5, 0.2]]
    assert gate.choose(2, 256, drafts, 15) == [3, 1]
    assert gate.choose(2, 2 * BESIDE, drafts, 15) == [2, 0]
    assert gate.choose(2, BESIDE - 1, drafts, 15) == [0, 0]
    assert gate.choose(2, 256, drafts, 0) == [0, 0]
    assert LIKELY == 0.5
