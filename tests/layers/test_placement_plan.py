"""Which layers stay on a device: against all that could be chosen."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from pio.layers.placement_plan import Plan, Unit, least, plan

UNITS = st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=7).map(
    lambda found: [Unit(i, nbytes, experts) for i, (nbytes, experts) in enumerate(found)]
)


def taken(units, copied, computed, buffers):
    """What a plan takes, told again."""
    away = {unit.layer for unit in [*copied, *computed]}
    here = sum(unit.nbytes for unit in units if unit.layer not in away)
    return here + buffers * max([unit.nbytes for unit in copied], default=0)


@given(UNITS, st.integers(0, 400))
def test_a_plan_fits_and_keeps_the_order_of_layers(units, room):
    for compute in (False, True):
        found = plan(units, room, compute=compute)
        if found is None:
            continue
        assert taken(units, found.copied, found.computed, found.buffers) <= room
        assert found.needs(units) == taken(units, found.copied, found.computed, found.buffers)
        assert compute or not found.computed
        assert all(unit.experts for unit in found.computed)
        for chosen in (found.copied, found.computed):
            numbers = [unit.layer for unit in chosen]
            assert numbers == sorted(set(numbers))
        assert not {u.layer for u in found.copied} & {u.layer for u in found.computed}
        assert found.buffers in (0, 1, 2) and (found.buffers < len(found.copied) or not found.copied)


@given(UNITS, st.integers(0, 400))
def test_there_is_one_wherever_copies_would_fit(units, room):
    assert (plan(units, room, compute=False) is not None) == (room >= least(units))


@given(UNITS, st.integers(0, 400))
def test_what_fits_stays(units, room):
    found = plan(units, room, compute=False)
    assert (found == Plan()) == (sum(unit.nbytes for unit in units) <= room)


@given(st.integers(2, 8), st.integers(1, 40), st.integers(0, 340))
def test_of_equal_layers_no_more_are_copied_than_must_be(count, nbytes, room):
    units = [Unit(i, nbytes, False) for i in range(count)]
    found = plan(units, room, compute=False)
    wanted = [
        (-buffers, len(copied))
        for size in range(count + 1)
        for copied in combinations(units, size)
        for buffers in ((1, 2) if size else (9,))
        if (buffers < size or not size) and taken(units, copied, (), buffers) <= room
    ]
    assert (found and (-found.buffers or -9, len(found.copied))) == (min(wanted) if wanted else None)


def test_layers_that_move_are_spread():
    units = [Unit(i, 10, False) for i in range(8)]
    found = plan(units, 60, compute=False)
    assert [unit.layer for unit in found.copied] == [1, 3, 5, 7] and found.buffers == 2
    assert [unit.layer for unit in plan(units, 59, compute=False).copied] == [0, 2, 4, 5, 7]
    assert plan(units, 20, compute=False).buffers == 2 and plan(units, 19, compute=False).buffers == 1
