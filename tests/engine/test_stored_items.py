"""Blocks and states as items: what is read is where it was written from, whatever lies beside it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.cache.format import CacheFormat
from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedCache
from pio.cache.recurrent import RecurrentStates
from pio.dtypes import float32
from pio.engine import stored_items
from pio.engine.stored_items import StoredItems

NOTHING = memoryview(b"")


def make(layers: int = 5) -> HybridCache:
    paged = PagedCache(2, 96, CacheFormat.keys_and_values(float32, 1, 3))
    return HybridCache([True, False] * 2 + [False] * (layers - 2), paged, RecurrentStates(layers, 3, ((3, 5), (2, 9))))


@pytest.mark.parametrize(("part", "parts"), [(1, 10), (60, 10), (61, 5), (132, 5), (133, 4), (10**6, 1)])
def test_parts_of_states(monkeypatch: pytest.MonkeyPatch, part: int, parts: int) -> None:
    monkeypatch.setattr(stored_items, "PART", part)
    cache = make()
    items = StoredItems(cache)
    assert items.state_bytes == 5 * (60 + 72) and len(items.kinds) == parts
    memory = [pool.rooms(2, NOTHING) for pool in items.states]
    assert len(memory) == parts
    flat = [piece for pieces in memory for piece in pieces]
    assert [len(piece) for piece in flat] == [60, 72] * 5
    for i, piece in enumerate(flat):
        piece[:] = bytes([i + 1]) * len(piece)
    pools = [pool.memoryview().cast("B") for pool in cache.state_memory()]
    assert all(bytes(pool[2 * len(pool) // 3 :]) == bytes([i + 1]) * (len(pool) // 3) for i, pool in enumerate(pools))
    assert not any(any(pool[: 2 * len(pool) // 3]) for pool in pools)
    for pool, pieces in zip(items.states, memory, strict=True):
        assert b"".join(ctypes.string_at(*piece) for piece in pool.pieces(2)) == b"".join(pieces)
    assert all(sum(map(len, pieces)) >= part for pieces in memory[:-1])


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 30))
def test_where_parts_end(sizes: list[int], least: int) -> None:
    ends = stored_items._cut(sizes, least)
    assert ends == sorted(set(ends)) and (ends[-1:] == [len(sizes)] or not sizes)
    parts = [sizes[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert [size for part in parts for size in part] == sizes
    assert all(sum(part) >= least > sum(part[:-1]) for part in parts[:-1])


def test_blocks_and_views_that_are_let_go() -> None:
    cache = make()
    items = StoredItems(cache)
    for i, piece in enumerate(items.blocks.rooms(1, NOTHING)):
        piece[:] = bytes([i + 1]) * len(piece)
    assert (
        items.block_bytes == cache.block_bytes == items.blocks.nbytes == sum(map(len, items.blocks.rooms(1, NOTHING)))
    )
    for i, pool in enumerate(cache.block_memory()):
        before, block, *behind = [bytes(each.memoryview()) for each in pool]
        assert block == bytes([i + 1]) * len(block) and not any(map(any, [before, *behind]))
    items.clear()
    assert items._blocks is None and not items._states
    nothing: Any = items.states
    assert nothing and items._states
