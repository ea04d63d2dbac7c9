"""The input of one forward pass: slices of several sequences, flat, in tensors that are made once and refilled."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from pio.dtypes import int32
from pio.errors import CapacityError
from pio.tensor import Tensor


class Batch:
    """T tokens of S sequences and the R rows among them whose logits are wanted.

    The tensors keep their full capacity; the counts say how much of them holds. ``begin``, then one ``add`` for each
    sequence; nothing is allocated but small Python integers.

    Attributes:
        tokens: Token ids, int32 (max_tokens,), of which num_tokens hold.
        positions: Their absolute positions, int32 (max_tokens,).
        starts: Where each sequence's slice begins, int32 (max_sequences + 1,); the last one holding ends the batch.
        past: Tokens of each sequence already in the cache, int32 (max_sequences,).
        block_tables: Cache blocks of each sequence in order, int32 (max_sequences, max_blocks_per_sequence); what
            lies behind a sequence's own blocks is stale.
        output_rows: Rows of the batch that need logits, ascending, int32 (max_outputs,).
        slots: Where recurrent layers keep the state of each sequence, int32 (max_sequences,).
        num_tokens: T.
        num_sequences: S.
        num_outputs: R.
    """

    __slots__ = (
        "_block_tables",
        "_output_rows",
        "_past",
        "_positions",
        "_slots",
        "_starts",
        "_tokens",
        "block_tables",
        "max_blocks_per_sequence",
        "max_outputs",
        "max_sequences",
        "max_tokens",
        "num_outputs",
        "num_sequences",
        "num_tokens",
        "output_rows",
        "past",
        "positions",
        "slots",
        "starts",
        "tokens",
    )

    def __init__(self, max_tokens: int, max_sequences: int, max_blocks_per_sequence: int, max_outputs: int) -> None:
        self.max_tokens = max_tokens
        self.max_sequences = max_sequences
        self.max_blocks_per_sequence = max_blocks_per_sequence
        self.max_outputs = max_outputs
        self.tokens = Tensor.zeros((max_tokens,), int32)
        self.positions = Tensor.zeros((max_tokens,), int32)
        self.starts = Tensor.zeros((max_sequences + 1,), int32)
        self.past = Tensor.zeros((max_sequences,), int32)
        self.slots = Tensor.zeros((max_sequences,), int32)
        self.block_tables = Tensor.zeros((max_sequences, max_blocks_per_sequence), int32)
        self.output_rows = Tensor.zeros((max_outputs,), int32)
        self._tokens = self.tokens.memoryview()
        self._positions = self.positions.memoryview()
        self._starts = self.starts.memoryview()
        self._past = self.past.memoryview()
        self._slots = self.slots.memoryview()
        self._block_tables = self.block_tables.reshape(-1).memoryview()
        self._output_rows = self.output_rows.memoryview()
        self.begin()

    def begin(self) -> None:
        """Empty the batch."""
        self.num_tokens = self.num_sequences = self.num_outputs = 0

    def add(
        self, token_ids: Sequence[int], past_length: int, block_table: Sequence[int], outputs: int, slot: int = 0
    ) -> None:
        """Append one sequence's slice.

        Args:
            token_ids: Its next tokens, at least one.
            past_length: How many of its tokens the cache holds already.
            block_table: Cache blocks that cover past and new tokens.
            outputs: How many of the slice's last tokens want logits.
            slot: Where recurrent layers keep its state, its own while it runs.

        Raises:
            CapacityError: The batch was made for fewer tokens, sequences, blocks or outputs.
        """
        count, sequence, first = len(token_ids), self.num_sequences, self.num_tokens
        self._check(count, len(block_table), outputs)
        if count == 1:
            self._tokens[first] = token_ids[0]
            self._positions[first] = past_length
        else:
            self._tokens[first : first + count] = _as_array(token_ids)
            self._positions[first : first + count] = array("i", range(past_length, past_length + count))
        self._past[sequence] = past_length
        self._slots[sequence] = slot
        at = sequence * self.max_blocks_per_sequence
        self._block_tables[at : at + len(block_table)] = _as_array(block_table)
        for i in range(outputs):
            self._output_rows[self.num_outputs + i] = first + count - outputs + i
        self._starts[sequence] = first
        self._starts[sequence + 1] = first + count
        self.num_tokens = first + count
        self.num_sequences = sequence + 1
        self.num_outputs += outputs

    def _check(self, count: int, blocks: int, outputs: int) -> None:
        for name, needed, limit in (
            ("tokens", self.num_tokens + count, self.max_tokens),
            ("sequences", self.num_sequences + 1, self.max_sequences),
            ("blocks of one sequence", blocks, self.max_blocks_per_sequence),
            ("output rows", self.num_outputs + outputs, self.max_outputs),
        ):
            if needed > limit:
                raise CapacityError(f"the batch holds {limit} {name}, found {needed}; split it, or make a larger batch")
        if count < 1:
            raise CapacityError("a sequence of a batch needs at least one token, found none")
        if not 0 <= outputs <= count:
            raise CapacityError(f"{count} tokens have 0 to {count} rows of logits, found outputs={outputs}")


def _as_array(values: Sequence[int]) -> array[int]:
    """The values in the layout of an int32 tensor; an array is taken as it is."""
    return values if isinstance(values, array) else array("i", values)
