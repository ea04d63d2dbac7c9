from __future__ import annotations

import random

import pytest

from pio.engine.drafts.acceptance import CLASSES, FIRST_CHANCES, LENGTHS, SMALLEST, Acceptance


def test_every_length_has_a_class() -> None:
    assert len(CLASSES) == LENGTHS[-1] + 1
    assert [CLASSES[n] for n in LENGTHS] == list(range(len(LENGTHS)))
    assert list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize("true", [0.02, 0.3, 0.97])
def test_chances_come_near_what_is_seen_and_follow_when_it_changes(true: float) -> None:
    draw, counts = random.Random(1), Acceptance(weight=4.0, most=512.0)
    for _ in range(2000):
        counts.count(5, draw.random() < true)
    assert counts.chance(CLASSES[5]) == pytest.approx(true, abs=0.05)
    assert counts.chance(CLASSES[4]) == FIRST_CHANCES[CLASSES[4]], "others know nothing of it"
    for _ in range(2000):
        counts.count(5, draw.random() < 1.0 - true)
    assert counts.chance(CLASSES[5]) == pytest.approx(1.0 - true, abs=0.05)


def test_an_answer_begins_with_the_more_cautious_of_two_chances() -> None:
    everybody = Acceptance()
    for _ in range(50):
        everybody.count(3, False)
        everybody.count(32, True)
    one = Acceptance(everybody)
    assert one.chance(CLASSES[3]) == everybody.chance(CLASSES[3]) < 0.05
    assert one.chance(CLASSES[32]) == FIRST_CHANCES[-1] < everybody.chance(CLASSES[32])
    for _ in range(20):
        one.count(3, True)
    assert one.chance(CLASSES[3]) > 0.7
    assert everybody.chance(CLASSES[3]) < 0.05


def test_survivals_are_products_of_chances_to_the_smallest() -> None:
    counts = Acceptance()
    found = counts.survivals(4, 100)
    chance, expected = 1.0, list[float]()
    for length in range(4, 104):
        chance *= counts.chance(CLASSES[min(length, 32)])
        expected.append(chance)
    assert found == [chance for chance in expected if chance >= SMALLEST]
    assert counts.survivals(40, 3) == pytest.approx([0.9, 0.81, 0.729])
    assert counts.survivals(40, 0) == []
