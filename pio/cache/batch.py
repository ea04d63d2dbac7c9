"""The input of one forward pass: slices of several sequences, flat, in memory that is made once and refilled."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from pio.device import Device
from pio.dtypes import int32, int64
from pio.errors import CapacityError, TensorError
from pio.memory.allocation import ALIGNMENT
from pio.ops._check import check
from pio.ops._overlap import check_same_device
from pio.ops.slices import Slices, as_array
from pio.tensor import Tensor

# Bytes that can be carried to a GPU beside the batch: how each sequence's token is chosen, and a mask of many tokens.
_CARRIED: Final = 512
_MASK: Final = 1 << 15


class Batch(Slices):
    """T tokens of S sequences and the R rows among them whose logits are wanted.

    The tensors keep their full capacity; the counts say how much of them holds. All lie in one stretch of memory behind
    the record that kernels read. ``begin``, then one ``add`` for each sequence; nothing is allocated but small Python
    integers.

    Attributes:
        tokens: Token ids, int32 (max_tokens,), of which num_tokens hold.
        rotary_positions: Which positions turn queries and keys, int32 (axes, max_tokens). Where a token lies in the
            cache is another matter: that follows from starts and past. In text all axes are alike.
        embeddings: Where rows of the residual stream lie that take the place of the embedding table's, int64
            (max_tokens,): an address, or 0 for a token that is looked up. See ``place``.
        additions: Where rows lie that are added to the residual stream behind each of the first layers, int64 (levels,
            max_tokens), or 0 for none.
        output_rows: Rows of the batch that need logits, ascending, int32 (max_outputs,).
        num_tokens: T.
        num_outputs: R.

    Of the sequences see ``Slices``.
    """

    __slots__ = (
        "_additions",
        "_embeddings",
        "_output_rows",
        "_placed",
        "_rotary_positions",
        "_tokens",
        "additions",
        "embeddings",
        "max_outputs",
        "max_tokens",
        "num_outputs",
        "num_tokens",
        "output_rows",
        "rotary_positions",
        "tokens",
    )

    def __init__(
        self,
        max_tokens: int,
        max_sequences: int,
        max_blocks_per_sequence: int,
        max_outputs: int,
        *,
        axes: int = 1,
        levels: int = 0,
        device: Device | None = None,
    ) -> None:
        """Make the memory.

        Args:
            max_tokens: Tokens at most.
            max_sequences: Sequences at most.
            max_blocks_per_sequence: Cache blocks of a sequence at most.
            max_outputs: Rows of logits at most.
            axes: How many numbers place a token for rotary embeddings.
            levels: How many of the first layers have rows added behind them.
            device: Where operations on it run; the default one if None. To a GPU ``send`` copies it.
        """
        numbers = 4 * (max_tokens * (1 + axes) + max_outputs) + 8 * max_tokens * (1 + levels)
        # rows for the tokens from there on, and what is added behind layers, kept until the next ``begin``
        self._placed: list[tuple[int, Tensor, tuple[Tensor, ...]]] = []
        room = _MASK + _CARRIED * max_sequences
        super().__init__(max_sequences, max_blocks_per_sequence, numbers + 5 * ALIGNMENT, device, room=room)
        self.max_tokens = max_tokens
        self.max_outputs = max_outputs
        self.tokens, tokens = self._take((max_tokens,), int32)
        self.rotary_positions, positions = self._take((axes, max_tokens), int32)
        self.output_rows, output_rows = self._take((max_outputs,), int32)
        self.embeddings, embeddings = self._take((max_tokens,), int64)
        self._embeddings = embeddings.fill_(0).memoryview()
        self.additions, additions = self._take((levels, max_tokens), int64)
        self._additions = [level.memoryview() for level in additions.fill_(0)]
        self._tokens = tokens.memoryview()
        self._rotary_positions = [axis.memoryview() for axis in positions]
        self._output_rows = output_rows.memoryview()
        self.num_tokens = self.num_outputs = 0

    def begin(self) -> None:
        """Empty the batch."""
        super().begin()
        self.num_tokens = self.num_outputs = 0
        self.forget_embeddings()

    def forget_embeddings(self) -> None:
        """Have all tokens looked up in the table again and nothing added, and let go of the rows that were placed."""
        while self._placed:
            first, rows, _ = self._placed[-1]
            for view in (self._embeddings, *self._additions):
                for i in range(first, first + rows.shape[0]):
                    view[i] = 0
            self._placed.pop()  # and with it the memory, behind the last address of it

    def add(
        self,
        token_ids: Sequence[int],
        past_length: int,
        block_table: Sequence[int],
        outputs: int,
        slot: int = 0,
        source: int | None = None,
        *,
        tentative: bool = False,
    ) -> None:
        """Append one sequence's slice.

        Args:
            token_ids: Its next tokens, at least one.
            past_length: How many of its tokens the cache holds already.
            block_table: Cache blocks that cover past and new tokens.
            outputs: How many of the slice's last tokens want logits.
            slot: Where recurrent layers keep its state, its own while it runs.
            source: From where they take it first, such as the slot of the slice before, where both are of one sequence
                and its state in between is to be kept; None is the slot itself.
            tentative: Whether it is not known yet which of these tokens stand, so that recurrent layers leave its
                states as they are until the cache is told by ``commit``. Layers that attend do as ever.

        Raises:
            CapacityError: The batch was made for fewer tokens, sequences, blocks or outputs.
        """
        count, first = len(token_ids), self.num_tokens
        fits = (
            first + count <= self.max_tokens
            and self.num_sequences < self.max_sequences
            and len(block_table) <= self.max_blocks_per_sequence
            and self.num_outputs + outputs <= self.max_outputs
            and 0 <= outputs <= count > 0
        )
        if not fits:
            raise self._refusal(count, len(block_table), outputs)
        if count == 1:
            self._tokens[first] = token_ids[0]
            for axis in self._rotary_positions:
                axis[first] = past_length
        else:
            self._tokens[first : first + count] = as_array(token_ids)
            positions = array("i", range(past_length, past_length + count))
            for axis in self._rotary_positions:
                axis[first : first + count] = positions
        for i in range(outputs):
            self._output_rows[self.num_outputs + i] = first + count - outputs + i
        self.append(count, past_length, block_table, slot, source, tentative=tentative)
        self.num_tokens = first + count
        self.num_outputs += outputs

    def check_tokens(self, vocab_size: int) -> None:
        """Look whether all tokens are in a vocabulary, here rather than where they are looked up.

        Raises:
            TensorError: One is not.
        """
        tokens = self._tokens[: self.num_tokens]
        if self.num_tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
            at = next(i for i, token in enumerate(tokens) if not 0 <= token < vocab_size)
            raise TensorError(f"batch: tokens[{at}] is {tokens[at]}, expected 0 to {vocab_size - 1}")

    def turn(self, first: int, positions: Sequence[Sequence[int]]) -> None:
        """Give tokens that were added other rotary positions than those of a text.

        Args:
            first: The first of these tokens, counted in the batch.
            positions: Theirs on each axis, as many as there are.

        Raises:
            CapacityError: There are not as many axes, or not as many tokens behind ``first``.
        """
        count = len(positions[0]) if positions else 0
        if len(positions) != len(self._rotary_positions) or not 0 <= first <= first + count <= self.num_tokens:
            raise CapacityError(
                f"positions of {count} tokens from token {first} on, on {len(positions)} axes: the batch has "
                f"{self.num_tokens} tokens and {len(self._rotary_positions)} axes"
            )
        for axis, values in zip(self._rotary_positions, positions, strict=True):
            axis[first : first + count] = as_array(values)

    def place(self, first: int, rows: Tensor, additions: Sequence[Tensor] = ()) -> None:
        """Have rows taken as embeddings of tokens that were added, in the place of the table's, until ``begin``.

        Args:
            first: The first of these tokens, counted in the batch.
            rows: float32 (n, hidden), contiguous, of the width that the model has, which is for the caller to see to.
            additions: What is added behind the first layers, likewise; one for each, or none at all.

        Raises:
            CapacityError: There are not as many tokens behind ``first``, or other than the batch has levels.
            TensorError: The rows have another form.
            DeviceError: They lie on another device than the batch.
        """
        check("Batch.place", "rows", rows, (None, None))
        count, width = rows.shape
        for added in additions:
            check("Batch.place", "additions", added, (count, width))
        for name, tensor in (("rows", rows), *(("additions", added) for added in additions)):
            check_same_device("Batch.place", "the batch", self.record, name, tensor)
        if len(additions) not in (0, len(self._additions)):
            raise CapacityError(f"{len(additions)} levels of rows to add: the batch has {len(self._additions)}")
        if not 0 <= first <= first + count <= self.num_tokens:
            raise CapacityError(f"{count} rows of embeddings from token {first} on: the batch has {self.num_tokens}")
        self._placed.append((first, rows, tuple(additions)))
        for view, tensor in zip((self._embeddings, *self._additions), (rows, *additions), strict=False):
            for i in range(count):
                view[first + i] = tensor.address + 4 * i * width

    def _refusal(self, count: int, blocks: int, outputs: int) -> CapacityError:
        """The error for a slice that does not fit."""
        for name, needed, limit in (
            ("tokens", self.num_tokens + count, self.max_tokens),
            ("sequences", self.num_sequences + 1, self.max_sequences),
            ("blocks of one sequence", blocks, self.max_blocks_per_sequence),
            ("output rows", self.num_outputs + outputs, self.max_outputs),
        ):
            if needed > limit:
                return CapacityError(
                    f"the batch holds {limit} {name}, found {needed}; split it, or make a larger batch"
                )
        if count < 1:
            return CapacityError("a sequence of a batch needs at least one token, found none")
        return CapacityError(f"{count} tokens have 0 to {count} rows of logits, found outputs={outputs}")
