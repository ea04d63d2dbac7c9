"""Which segments go, against what a look at all of them anew says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pio.store.eviction import SETTLED, Eviction
from pio.store.folder import Listed
from pio.store.segment import Item, Segment, Stored

NOW = 1e6


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def segment(name: str, items: list[Item]) -> Segment:
    return Segment(name, [Stored(item, 0, 1, 0) for item in items])


def block(number: int) -> Item:
    """Block 10a + b stands behind block 10a + b - 1, and begins a way where b is 0."""
    return Item("block", key(number), key(number - 1) if number % 10 else None)


def states(number: int) -> Item:
    return Item("states0", key(number), key(number))


ITEMS = st.builds(lambda make, number: make(number), st.sampled_from([block, states]), st.integers(0, 25))
FOLDER = st.lists(
    st.tuples(
        st.lists(ITEMS, min_size=1, max_size=4),
        st.integers(1, 9),  # bytes
        st.floats(0, 2 * SETTLED),  # its age in seconds
        st.booleans(),  # whether it is of this store
        st.booleans(),  # whether the system lets it go
    ),
    max_size=12,
)


def expected(
    left: list[tuple[Listed, Segment | None]], adding: Segment, ways: bool, losing: bool
) -> tuple[str | None, bool]:
    """Return the one that goes next, and whether nobody can reach it; no more of these come once another one went."""
    known = [found for _, found in left if found is not None]

    def is_held(wanted: bytes) -> bool:
        return any(i.item.key == wanted and i.item.kind == "block" for s in (*known, adding) for i in s.items)

    def is_continued(one: Segment) -> bool:
        own = {i.item.key for i in one.items if i.item.kind == "block"}
        parents = {(s.name, i.item.parent) for s in (*known, adding) for i in s.items}
        inside = {s.name: {i.item.key for i in s.items if i.item.kind == "block"} for s in (*known, adding)}
        return any(parent in own and parent not in inside[name] for name, parent in parents if parent is not None)

    def is_reached(one: Segment) -> bool:
        own = {i.item.key for i in one.items if i.item.kind == "block"}
        return any(i.item.parent is None or (i.item.parent not in own and is_held(i.item.parent)) for i in one.items)

    for entry, found in left if losing else ():
        if found is not None and not is_reached(found):
            return entry.name, True
    for entry, found in left if ways else ():
        old = entry.used < (NOW - SETTLED) * 1e9
        if found is not None and old and not is_continued(found):
            if not any(i.item.kind == "states0" for i in found.items):
                return entry.name, False
    return next((entry.name for entry, found in left if found is None or not is_continued(found)), None), False


@given(FOLDER, st.lists(ITEMS, min_size=1, max_size=3), st.booleans())
def test_the_order_in_which_segments_go(
    folder: list[tuple[list[Item], int, float, bool, bool]], new: list[Item], ways: bool
) -> None:
    rows = [
        (Listed(int((NOW - age) * 1e9), f"{i}", nbytes), segment(f"{i}", items) if own else None, goes)
        for i, (items, nbytes, age, own, goes) in enumerate(folder)
    ]
    rows.sort(key=lambda row: row[0])
    adding = segment("new", new)
    known = {entry.name: found for entry, found, _ in rows if found is not None}
    found = Eviction([entry for entry, _, _ in rows], known, adding, ways=ways, now=NOW)
    assert found.nbytes == sum(entry.nbytes for entry, _, _ in rows)
    there, left, losing = sum(entry.nbytes for entry, _, _ in rows), [row[:2] for row in rows], True
    goes = {entry.name: goes for entry, _, goes in rows}
    stuck: list[tuple[Listed, Segment | None]] = []  # they still hold what they hold, and are asked for no more
    while True:
        victim = found.next()
        if stuck:  # what a look anew would say of those is another matter
            break
        wanted, losing = expected(left, adding, ways, losing)
        assert (None if victim is None else victim.name) == wanted
        if victim is None:
            break
        row = next(row for row in left if row[0] is victim)
        left.remove(row)
        found.remove(victim, stays=not goes[victim.name])
        if goes[victim.name]:
            there -= victim.nbytes
        else:
            stuck.append(row)
        assert found.nbytes == there and [entry for entry, _ in left] == found.left


def test_blocks_that_are_just_written_wait_for_their_states() -> None:
    new, old = Listed(int(NOW * 1e9), "new", 1), Listed(int((NOW - 30) * 1e9), "old", 1)
    segments = {"new": segment("new", [block(0)]), "old": segment("old", [block(10), states(10)])}
    assert Eviction([old, new], segments, ways=True, now=NOW).next() is old
    assert Eviction([old, new], segments, ways=True, now=NOW + 2 * SETTLED).next() is new
    assert Eviction([old, new], segments, now=NOW + 2 * SETTLED).next() is old
