"""Which tokens of a flat batch belong to which sequence, and where the sequence's cache and state are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from pio.device import Device, on_device
from pio.dtypes import DType, int32, int64
from pio.kernels import _batch_record as fields
from pio.memory.allocation import ALIGNMENT
from pio.memory.arena import Arena
from pio.memory.layout import Shape, row_major
from pio.memory.storage import Storage
from pio.tensor import Tensor


class Tentative(NamedTuple):
    """A sequence whose states a step leaves as they are.

    Attributes:
        slot: Where its states lie.
        first: Where in the window its tokens are kept.
        tokens: How many there are.
        fresh: Whether nothing came before, so that its states count as zeros.
    """

    slot: int
    first: int
    tokens: int
    fresh: bool


class Slices:
    """Tables of sequences in one stretch of memory, which begins with the record that kernels read.

    It is made once and refilled, and its record says how many sequences it holds: a recorded step, which knows the
    record by its address, reads anew each time how many there are. That of a GPU is filled in memory of this process;
    ``send`` copies all of it there, once a step, and the tensors are those there. What else the step reads there may go
    along (``carry``).

    Attributes:
        record: int64 (8,), as ``pio/kernels/_batch_record.py`` lays it out.
        starts: Where each sequence's tokens begin, int32 (max_sequences + 1,); the last one holding ends the batch.
        past: Tokens of each sequence already in the cache, int32 (max_sequences,). Where it is 0, the state is zero
            whatever the slot holds.
        slots: Where recurrent layers keep the state of each sequence, int32 (max_sequences,), pairwise different.
        rows: Where in the window of recurrent layers the tokens of a sequence are kept that must not move its states,
            int32 (max_sequences,); -1 for all others.
        sources: From which slot it is taken first, int32 (max_sequences,): the same, or that of a sequence before,
            which is left as it is. So a step may cut a sequence in two, and keep the state of where it was cut.
        block_tables: Cache blocks of each sequence in order, int32 (max_sequences, max_blocks_per_sequence); what
            lies behind a sequence's own blocks is stale.
        num_sequences: How many hold.
        tentative: Those whose states must not move.
    """

    __slots__ = (
        "_block_tables",
        "_capacity",
        "_carried",
        "_front",
        "_memory",
        "_past",
        "_record",
        "_rows",
        "_slots",
        "_sources",
        "_starts",
        "_there",
        "block_tables",
        "max_blocks_per_sequence",
        "max_sequences",
        "num_sequences",
        "past",
        "record",
        "rows",
        "slots",
        "sources",
        "starts",
        "tentative",
    )

    def __init__(
        self,
        max_sequences: int,
        max_blocks_per_sequence: int,
        more: int = 0,
        device: Device | None = None,
        *,
        room: int = 0,
    ) -> None:
        """Make the memory.

        Args:
            max_sequences: Sequences at most.
            max_blocks_per_sequence: Cache blocks of a sequence at most.
            more: Bytes behind the tables for what a subclass keeps, taken by ``_take``.
            device: Where operations on it run; the default one if None.
            room: Bytes that can be carried to a GPU in any case.
        """
        self.max_sequences = max_sequences
        self.max_blocks_per_sequence = max_blocks_per_sequence
        there = on_device(device)
        # Block tables lie behind all else: they are large, and no more of them is sent than holds. What is carried lies
        # behind those that hold.
        front = _whole_lines(8 * fields.FIELDS + 4 * (5 * max_sequences + 1) + more) + 6 * ALIGNMENT
        nbytes = front + _whole_lines(4 * max_sequences * max_blocks_per_sequence)
        if there.stream is not None:
            nbytes += _whole_lines(room)
        # with the device's threads, which whoever asks the batch for its device splits work over
        self._memory = Arena(nbytes, device=there if there.stream is None else None)
        self._front, self._capacity, self._carried = front, nbytes, 0
        self._there = None if there.stream is None else Storage.allocate(nbytes, what="a batch", device=there)
        self.record, record = self._take((fields.FIELDS,), int64)
        self.starts, starts = self._take((max_sequences + 1,), int32)
        self.past, past = self._take((max_sequences,), int32)
        self.slots, slots = self._take((max_sequences,), int32)
        self.rows, rows = self._take((max_sequences,), int32)
        self.sources, sources = self._take((max_sequences,), int32)
        tables = self._memory.storage
        shape = max_sequences, max_blocks_per_sequence
        block_tables = Tensor(tables, tables.address + front, int32, shape, row_major(shape))
        self.block_tables = self._seen(block_tables)
        self._record = record.memoryview()
        self._starts = starts.memoryview()
        self._past = past.memoryview()
        self._slots = slots.memoryview()
        self._rows = rows.memoryview()
        self._sources = sources.memoryview()
        self._block_tables = block_tables.reshape(-1).memoryview()
        self._record[fields.BLOCKS // 8] = max_blocks_per_sequence
        for field, table in (
            (fields.TABLES, self.block_tables),
            (fields.STARTS, self.starts),
            (fields.PAST, self.past),
            (fields.SLOTS, self.slots),
            (fields.TENTATIVE, self.rows),
            (fields.SOURCES, self.sources),
        ):
            self._record[field // 8] = table.address - self.record.address
        self.tentative: list[Tentative] = []
        self.begin()

    def _take(self, shape: Shape, dtype: DType) -> tuple[Tensor, Tensor]:
        """Return a tensor of the memory, as operations see it and as it is written here."""
        here = self._memory.take(shape, dtype)
        return self._seen(here), here

    def _seen(self, here: Tensor) -> Tensor:
        """The tensor as operations see it."""
        if self._there is None:
            return here
        at = self._there.address + here.address - self._memory.storage.address
        return Tensor(self._there, at, here.dtype, here.shape, here.strides)

    @property
    def _end(self) -> int:
        """Where the block tables end that hold, counted from the beginning."""
        return self._front + _whole_lines(4 * self.num_sequences * self.max_blocks_per_sequence)

    def carry(self, nbytes: int) -> tuple[int, int] | None:
        """Make room for bytes that the next ``send`` takes to the GPU, behind all sequences: none is added any more.

        Returns:
            Where they are to be written, and where they will lie there, until the next ``send``; None where there is no
            room, or no GPU.
        """
        at = self._end
        if self._there is None or at + nbytes > self._capacity:
            return None
        self._carried = nbytes
        return self._memory.storage.address + at, self._there.address + at

    def send(self) -> None:
        """Let operations that are called from here on see what it holds now: on a GPU that is a copy."""
        if self._there is not None:
            stream = self._there.device.stream
            assert stream is not None and self._memory.used <= self._front
            stream.copy_in(self._there.address, self._memory.storage.address, self._end + self._carried)

    def begin(self) -> None:
        """Leave no sequence."""
        self.num_sequences = self._record[fields.SEQUENCES // 8] = self._carried = 0
        self.tentative.clear()

    @property
    def tentative_tokens(self) -> int:
        """Rows of a window that the tokens take which must not move states."""
        return self.tentative[-1].first + self.tentative[-1].tokens if self.tentative else 0

    def append(
        self,
        tokens: int,
        past_length: int,
        block_table: Sequence[int],
        slot: int = 0,
        source: int | None = None,
        *,
        tentative: bool = False,
    ) -> None:
        """Add a sequence behind the others; nothing is checked.

        Args:
            tokens: How many tokens come now.
            past_length: How many came before.
            block_table: Cache blocks that cover all of them.
            slot: Where recurrent layers keep its state.
            source: From where they take it first; None is the slot itself.
            tentative: Whether they leave it as it is.
        """
        sequence = self.num_sequences
        self._starts[sequence + 1] = self._starts[sequence] + tokens  # the first one stays 0
        self._past[sequence] = past_length
        self._slots[sequence] = slot
        self._sources[sequence] = slot if source is None else source
        if tentative:
            first = self.tentative_tokens
            self.tentative.append(Tentative(slot, first, tokens, past_length == 0))
            self._rows[sequence] = first
        else:
            self._rows[sequence] = -1
        at = sequence * self.max_blocks_per_sequence
        self._block_tables[at : at + len(block_table)] = as_array(block_table)
        self.num_sequences = self._record[fields.SEQUENCES // 8] = sequence + 1


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def as_array(values: Sequence[int]) -> array[int]:
    """The values in the layout of an int32 tensor; an array is taken as it is."""
    return values if isinstance(values, array) else array("i", values)
