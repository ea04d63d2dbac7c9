"""What a store removes where there is no room for more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from stores import ITEM, ROOT, WAIT, files, get, holds, key, make, put, put_states

from pio.errors import ConfigError


def test_states_stand_beside_blocks_and_go_before_them(folder: Path) -> None:
    """Those that need not stay go first, with blocks that led to them alone; what is used stays."""
    limit = 12 * (ITEM + 1000) + (1 << 16)
    most = limit // (ITEM + 500)
    store = make(folder, limit=limit, ways=True)
    for number in (0, 10, 20):
        put(store, number, chain=False)
        put_states(store, number)
    put(store, 21)  # which leads to nothing
    place, other = store.find("states0", key(20)), store.find("states1", key(0))
    assert place is not None and other is not None and store.find("states0", key(21)) is None
    assert place.segment.beside and place.segment.parents == {key(20)} and not place.segment.keys
    store.age(place)
    store.note_use(other)
    for file in files(folder):
        os.utime(file, (time.time() - 1000, time.time() - 1000))
    for number in range(100, 100 + most):
        put(store, number, chain=False)
        if store.find("block", key(20)) is None:
            break
    assert store.find("states0", key(20)) is None and store.find("block", key(21)) is None
    assert all(store.find(kind, key(n)) is not None for kind in ("block", "states0", "states1") for n in (0, 10))
    for number in range(200, 200 + most):
        put(store, number, chain=False)
        if store.find("block", key(10)) is None:
            break
    assert store.find("states0", key(10)) is None
    assert all(store.find(kind, key(0)) is not None for kind in ("block", "states0", "states1"))
    store.close(WAIT)


def test_what_shares_its_segment_with_others_is_not_aged(folder: Path) -> None:
    store = make(folder)
    put(store, 0, 1)
    place = store.find("block", key(0))
    assert place is not None
    store.age(place)
    store.close(WAIT)
    assert files(folder)[0].stat().st_mtime > time.time() - 1000


def test_the_limit_holds_for_all_models_together(folder: Path) -> None:
    limit = 30 * ITEM + (1 << 16)
    stores = [make(folder, bytes([i]) * 32, limit) for i in range(3)]
    for number in range(60):
        put(stores[number % 3], number, chain=False)
        assert sum(file.stat().st_size for file in files(folder)) <= limit
    assert sum(file.stat().st_size for file in files(folder)) > 0.9 * limit
    assert holds(stores[2], 59) and get(stores[0], 0) is None
    for store in stores:
        store.close(WAIT)
    smaller = make(folder, ROOT, limit // 2)
    assert sum(file.stat().st_size for file in files(folder)) <= limit // 2
    assert smaller.disk_bytes == sum(file.stat().st_size for file in files(folder))


def test_what_was_used_last_stays(folder: Path) -> None:
    limit = 6 * (ITEM + 1000) + (1 << 16)
    most = limit // (ITEM + 400)
    store = make(folder, limit=limit)
    for number in range(most):
        put(store, 10 * number, chain=False)
    for number in range(3 * most):
        place = store.find("block", key(0))
        assert place is not None
        store.note_use(place)
        put(store, 1000 + 10 * number, chain=False)
        store.look()
    assert holds(store, 0) and get(store, 10) is None and get(store, 1000) is None
    store.close(WAIT)


def test_the_end_of_a_chain_goes_before_its_beginning(folder: Path) -> None:
    """A chain that is longer than the limit: what is left of it can be reached from its first item."""
    limit = 12 * (ITEM + 1000) + (1 << 16)
    store = make(folder, limit=limit)
    number = 0
    for number in range(60):
        put(store, number)
        store.look()
        if get(store, number) is None:
            break
    assert 10 < number < 59 and holds(store, *range(number)) and store.keeps
    put(store, 1000, chain=False)
    store.look()
    assert holds(store, *range(number - 1), 1000) and get(store, number - 1) is None
    store.close(WAIT)


def test_what_nobody_can_reach_goes_first(folder: Path) -> None:
    limit = 12 * (ITEM + 1000) + (1 << 16)
    store = make(folder, limit=limit)
    put(store, 0, chain=False)
    put(store, 500)
    most = limit // (ITEM + 500)
    for number in range(1, most - 1):
        put(store, number)
        store.look()
    assert holds(store, 0, 500)
    for number in range(most - 1, most + 1):
        put(store, number)
        store.look()
    assert holds(store, 0, most - 1) and get(store, 500) is None
    store.close(WAIT)


def test_a_limit_without_room_for_a_segment_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"prefix_cache_disk=5000 is too small: .* pieces of .* give at least"):
        make(folder, limit=5000)


def test_what_cannot_be_removed_still_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 30 * ITEM
    store = make(folder, limit=limit)
    monkeypatch.setattr(store._folder, "discard", lambda name: False)
    for number in range(0, 40, 4):
        put(store, *range(number, number + 4), chain=False)
    store.close(WAIT)
    assert sum(file.stat().st_size for file in files(folder)) <= limit
