from __future__ import annotations

from array import array

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pio.engine.block_manager import BlockManager
from pio.errors import ConfigError


class Pool(RuleBasedStateMachine):
    """Whatever sequences do, every block has one owner or none."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(13, 3)
        self.held: list[array[int]] = []

    @rule(target=tables)
    def begin(self) -> array[int]:
        self.held.append(array("i"))
        return self.held[-1]

    @rule(table=tables, length=st.integers(0, 45))
    def grow(self, table: array[int], length: int) -> None:
        before, free = list(table), self.blocks.num_free
        needed = max(0, (length + 2) // 3 - len(before))
        assert self.blocks.grow(table, length) == (needed <= free)
        assert list(table)[: len(before)] == before
        assert len(table) == len(before) + (needed if needed <= free else 0)

    @rule(table=consumes(tables))
    def end(self, table: array[int]) -> None:
        free, held = self.blocks.num_free, len(table)
        self.blocks.release(table)
        assert (len(table), self.blocks.num_free) == (0, free + held)

    @invariant()
    def nothing_is_lost_or_shared(self) -> None:
        used = [block for table in self.held for block in table]
        assert len(used) == len(set(used)) == 13 - self.blocks.num_free
        assert set(used) <= set(range(13))


TestPool = Pool.TestCase


def test_sizes() -> None:
    blocks = BlockManager(4, 8)
    assert [blocks.blocks_needed(n) for n in (0, 1, 8, 9)] == [0, 1, 1, 2]
    assert blocks.num_tokens == 32
    with pytest.raises(ConfigError, match="at least one block"):
        BlockManager(0, 8)
