"""Which tokens of a flat batch belong to which sequence, and where the sequence's cache and state are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from pio.dtypes import int32, int64
from pio.kernels import _batch_record as fields
from pio.memory.allocation import ALIGNMENT
from pio.memory.arena import Arena


class Slices:
    """Tables of sequences in one stretch of memory, which begins with the record that kernels read.

    It is made once and refilled, and its record says how many sequences it holds: a recorded step, which knows the
    record by its address, reads anew each time how many there are.

    Attributes:
        record: int64 (6,), as ``pio/kernels/_batch_record.py`` lays it out.
        starts: Where each sequence's tokens begin, int32 (max_sequences + 1,); the last one holding ends the batch.
        past: Tokens of each sequence already in the cache, int32 (max_sequences,). Where it is 0, the state is zero
            whatever the slot holds.
        slots: Where recurrent layers keep the state of each sequence, int32 (max_sequences,), pairwise different.
        block_tables: Cache blocks of each sequence in order, int32 (max_sequences, max_blocks_per_sequence); what
            lies behind a sequence's own blocks is stale.
        num_sequences: How many hold.
    """

    __slots__ = (
        "_block_tables",
        "_memory",
        "_past",
        "_record",
        "_slots",
        "_starts",
        "block_tables",
        "max_blocks_per_sequence",
        "max_sequences",
        "num_sequences",
        "past",
        "record",
        "slots",
        "starts",
    )

    def __init__(self, max_sequences: int, max_blocks_per_sequence: int, more: int = 0) -> None:
        """Make the memory.

        Args:
            max_sequences: Sequences at most.
            max_blocks_per_sequence: Cache blocks of a sequence at most.
            more: Bytes behind the tables for what a subclass keeps, taken from ``_memory``.
        """
        self.max_sequences = max_sequences
        self.max_blocks_per_sequence = max_blocks_per_sequence
        tables = 8 * fields.FIELDS + 4 * (max_sequences * (max_blocks_per_sequence + 3) + 1)
        self._memory = Arena(tables + 5 * ALIGNMENT + more)
        self.record = self._memory.take((fields.FIELDS,), int64)
        self.starts = self._memory.take((max_sequences + 1,), int32)
        self.past = self._memory.take((max_sequences,), int32)
        self.slots = self._memory.take((max_sequences,), int32)
        self.block_tables = self._memory.take((max_sequences, max_blocks_per_sequence), int32)
        self._record = self.record.memoryview()
        self._starts = self.starts.memoryview()
        self._past = self.past.memoryview()
        self._slots = self.slots.memoryview()
        self._block_tables = self.block_tables.reshape(-1).memoryview()
        self._record[fields.BLOCKS // 8] = max_blocks_per_sequence
        for field, table in (
            (fields.TABLES, self.block_tables),
            (fields.STARTS, self.starts),
            (fields.PAST, self.past),
            (fields.SLOTS, self.slots),
        ):
            self._record[field // 8] = table.address - self.record.address
        self.begin()

    def begin(self) -> None:
        """Leave no sequence."""
        self.num_sequences = self._record[fields.SEQUENCES // 8] = 0

    def append(self, tokens: int, past_length: int, block_table: Sequence[int], slot: int = 0) -> None:
        """Add a sequence behind the others; nothing is checked.

        Args:
            tokens: How many tokens come now.
            past_length: How many came before.
            block_table: Cache blocks that cover all of them.
            slot: Where recurrent layers keep its state.
        """
        sequence = self.num_sequences
        self._starts[sequence + 1] = self._starts[sequence] + tokens  # the first one stays 0
        self._past[sequence] = past_length
        self._slots[sequence] = slot
        at = sequence * self.max_blocks_per_sequence
        self._block_tables[at : at + len(block_table)] = as_array(block_table)
        self.num_sequences = self._record[fields.SEQUENCES // 8] = sequence + 1


def as_array(values: Sequence[int]) -> array[int]:
    """The values in the layout of an int32 tensor; an array is taken as it is."""
    return values if isinstance(values, array) else array("i", values)
