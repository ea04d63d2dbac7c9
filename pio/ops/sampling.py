"""Choosing tokens from logits: all rows of a step in one call, with scratch that is made once for a vocabulary."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from pio.device import Device, on_device
from pio.errors import ConfigError, DeviceError, NumericalError, TensorError
from pio.kernels import _sampling_record as fields
from pio.kernels import launcher, sizes
from pio.kernels._missing import MissingKernel
from pio.memory import step
from pio.memory.allocation import ALIGNMENT
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.ops._check import check, split
from pio.ops._sent_choices import Carrier, SentChoices
from pio.ops.penalties import Penalties
from pio.tensor import Tensor

kernels = launcher.module("sampling")
# How many candidates are put in order to find a nucleus of unknown size, before all of them are.
RUNGS: Final = (256, 4096)
MAX_INT64: Final = 2**63 - 1
TOGETHER: Final = 16  # tokens that are chosen at the same time at most, each with scratch of its own


class Choice:
    """How the tokens of one answer are chosen, one after another, and what was chosen last.

    Attributes:
        record: What the kernel reads and writes.
        address: Where that lies; it never moves.
        penalties: What changes the logits before; whoever takes a token has them count it.
        token: What was chosen; below 0 where nothing could be, and ``refusal`` says why.
    """

    __slots__ = ("_floats", "_lists", "address", "penalties", "record", "token")

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        *,
        penalties: Penalties | None = None,
        logprobs: int | None = None,
    ) -> None:
        """Say how: penalties, temperature, then only the top k, of these the top p, of these the min p.

        Args:
            temperature: Logits are divided by it; 0 takes the likeliest token, among equals the lowest id.
            top_k: How many candidates, 0 for all; among equal logits the lower ids.
            top_p: The likeliest candidates until they have this probability; 1 for all.
            min_p: Candidates at least this fraction as likely as the likeliest; 0 for all.
            penalties: Applied to a copy of the row.
            logprobs: Of how many likeliest tokens log probabilities are wanted beside that of the token; None: of none.
        """
        self.penalties = penalties
        self.token = fields.NOT_FINITE
        top = -1 if logprobs is None else logprobs
        # memory that the kernel reads and writes; the array is never resized, so it stays where it is
        self.record = array("q", bytes(8 * (fields.WORDS + 2 * max(top, 0))))
        self._floats = memoryview(self.record).cast("B").cast("d")
        self._lists = array("q")
        self.address = self.record.buffer_info()[0]
        self._put(fields.TEMPERATURE, temperature)
        self._put(fields.TOP_P, top_p)
        self._put(fields.MIN_P, min_p)
        self.record[fields.TOP_K // 8] = min(top_k, MAX_INT64)  # of more there are no tokens
        self.record[fields.TOP // 8] = top
        if penalties is not None:
            self._put_penalties(penalties)

    def aim(self, row: int, u: float) -> None:
        """Name the row of the next token, and a uniform random number, 0 <= u < 1; the same one draws the same."""
        self.record[_ROW], self._floats[_U] = row, u
        if self.penalties is not None:
            self._put_next(self.penalties)

    @property
    def logprob(self) -> float:
        """The natural log probability of the token, from the raw logits."""
        return self._floats[fields.LOGPROB // 8]

    @property
    def likeliest(self) -> tuple[tuple[int, float], ...]:
        """The likeliest tokens with their log probabilities, best first; among equals the lower ids first."""
        first = fields.LIKELIEST // 8
        last = first + 2 * self.record[fields.NUM_LIKELIEST // 8]
        return tuple(zip(self.record[first:last:2], self._floats[first + 1 : last : 2], strict=True))

    def named(self) -> Iterable[tuple[int, int, int]]:
        """Return where the record names memory: the field, and address and bytes of what it names."""
        penalties = self.penalties
        if penalties is None:
            return
        seen = 4 * penalties.seen
        yield fields.IDS, penalties.ids.address, seen
        yield fields.COUNTS, penalties.counts.address, seen
        yield fields.BIAS_IDS, penalties.bias_ids.address, penalties.bias_ids.nbytes
        yield fields.BIASES, penalties.biases.address, penalties.biases.nbytes
        mask = None if penalties.bans is None else penalties.bans.mask
        if mask is not None:
            yield fields.MASK, mask.address, 4 * len(mask.words)

    def lists(self) -> Sequence[array[int]]:
        """Return the lists of tokens, int32, that the record names by way of a table."""
        bans = None if self.penalties is None else self.penalties.bans
        return () if bans is None else bans.lists

    def refusal(self, logits: Tensor) -> ConfigError | NumericalError:
        """Return the error that says why no token could be chosen: its row is broken, or all that it allows is banned.

        Args:
            logits: As ``Sampler.sample`` got them.
        """
        row = self.record[_ROW]
        banned = self.token == fields.NOTHING_LEFT and self.penalties is not None and self.penalties.bans is not None
        if not banned or max(logits[row].to("cpu").memoryview()) == -math.inf:
            return _not_finite(logits, row)
        return ConfigError(
            "suppress_tokens, begin_suppress_tokens, bad_words_ids, min_new_tokens, no_repeat_ngram_size and "
            "response_format together forbid every token that could come next; forbid fewer, or end the answer earlier "
            "with max_new_tokens"
        )

    def _put(self, offset: int, value: float) -> None:
        self._floats[offset // 8] = value

    def _put_penalties(self, penalties: Penalties) -> None:
        """Write what stays the same from token to token."""
        words = self.record
        words[fields.IDS // 8], words[fields.COUNTS // 8] = penalties.ids.address, penalties.counts.address
        words[fields.BIAS_IDS // 8], words[fields.BIASES // 8] = penalties.bias_ids.address, penalties.biases.address
        words[fields.BIASED // 8] = penalties.biases.size
        self._put(fields.REPETITION, penalties.repetition)
        self._put(fields.PRESENCE, penalties.presence)
        self._put(fields.FREQUENCY, penalties.frequency)

    def _put_next(self, penalties: Penalties) -> None:
        """Write what may differ for the next token; lists of tokens move as they grow."""
        words, bans, edited = self.record, penalties.bans, penalties.editing
        words[fields.SEEN // 8] = penalties.seen
        if bans is not None:
            words[fields.MASK // 8] = 0 if bans.mask is None else bans.mask.address
            self._lists = array("q", [number for ids in bans.lists for number in ids.buffer_info()])
            words[fields.LISTS // 8], words[fields.NUM_LISTS // 8] = self._lists.buffer_info()[0], len(bans.lists)
            edited = edited or bans.mask is not None or bool(bans.lists)
        words[fields.EDITED // 8] = edited  # a row that nothing changes is not copied


_ROW, _U, _TOKEN = fields.ROW // 8, fields.U // 8, fields.TOKEN // 8


class Sampler:
    """Chooses tokens from rows of logits, which it leaves as they are; for one thread at a time.

    Attributes:
        vocab_size: Length of a row of logits.
        device: Where the logits lie.
    """

    def __init__(
        self,
        vocab_size: int,
        budget: MemoryBudget | None = None,
        *,
        rows: int = TOGETHER,
        device: Device | None = None,
    ) -> None:
        """Make the scratch.

        Args:
            vocab_size: Length of a row of logits.
            budget: Counts the memory.
            rows: How many tokens a call usually chooses at most; of more some wait for others.
            device: Where the logits lie; the default one if None.

        Raises:
            OutOfMemoryError: The budget or the system refuses.
        """
        self.vocab_size, self.device, self._budget = vocab_size, on_device(device), budget
        self._elsewhere: Sampler | None = None  # of the CPU, where the GPU has no kernel for it
        stream, blocks = self.device.stream, -(-vocab_size // sizes.MAXIMA)
        # a thread chooses a token by itself; on a GPU a block of the grid, which sorts in its shared memory
        together = self.device.threads if stream is None else stream.multiprocessors
        self._together = rows = max(1, min(together, rows, TOGETHER))
        ranked = 2 * vocab_size if stream is None else 0
        nbytes = _whole_lines(4 * rows * vocab_size) + 2 * _whole_lines(4 * rows * blocks)
        nbytes += _whole_lines(4 * rows * ranked)
        arena = Arena(nbytes, budget=budget, what="the sampler's scratch", device=self.device)
        self._sent = None if stream is None else SentChoices(self.device, budget)
        self._arena = arena
        self._scratch = tuple(arena.take((rows, n)).address for n in (vocab_size, blocks, blocks, ranked))

    @property
    def nbytes(self) -> int:
        """Bytes of the scratch."""
        own = self._arena.capacity + (0 if self._sent is None else self._sent.nbytes)
        return own if self._elsewhere is None else own + self._elsewhere.nbytes

    def bring(self, choices: Sequence[Choice], batch: Carrier) -> None:
        """Have choices go to a GPU with the batch of the step that computes their logits, not in a copy of their own.

        ``sample`` has them chosen then, of which these are the same in the same order; others it sends by itself.

        Args:
            choices: As they are when they are chosen. On the CPU nothing has to be brought.
            batch: What is sent for the step, complete but for this.
        """
        if self._sent is None:
            return
        with suppress(MissingKernel):  # they are chosen on the CPU
            _ = kernels.on(self.device).sample[""]
            self._sent.carry(choices, batch)

    def sample(self, logits: Tensor, choices: Sequence[Choice]) -> None:
        """Choose the token of each of these, from the row that it aims at; what else is chosen changes nothing.

        Args:
            logits: float32 (rows, vocabulary), on the sampler's device.
            choices: None of them twice.

        Raises:
            TensorError: The logits have another shape, or not that row.
            DeviceError: They lie on another device.
        """
        step.refuse("chooses tokens", "tokens are chosen behind the step, when its logits are complete")
        check("sampling", "logits", logits, (None, self.vocab_size))
        if logits.device != self.device:
            raise DeviceError(
                f"sampling: logits lie on {logits.device}, and this sampler chooses on {self.device}; make a sampler "
                "for that device"
            )
        rows = logits.shape[0]
        for choice in choices:
            if not 0 <= choice.record[_ROW] < rows:
                raise TensorError(f"sampling: row {choice.record[_ROW]} is outside logits of shape {logits.shape}")
        try:
            sample = kernels.on(self.device).sample[""]
        except MissingKernel:
            if self._elsewhere is None:
                self._elsewhere = Sampler(self.vocab_size, self._budget, rows=self._together)
            self._elsewhere.sample(logits.to("cpu"), choices)
            return
        records = array("q", [choice.address for choice in choices])
        address, sent = records.buffer_info()[0], self._sent
        if sent is not None:
            address = sent.send(choices)
        at_once = max(1, len(choices)) if sent is None else self._together  # a grid has a row for each block
        for first in range(0, len(choices), at_once):
            count = min(at_once, len(choices) - first)
            threads = min(count, self._together, split(count * self.vocab_size, self.device))
            sample(address + 8 * first, count, logits.address, self.vocab_size, *self._scratch, *RUNGS, threads)
        if sent is not None:
            sent.receive(choices)
        for choice in choices:
            choice.token = choice.record[_TOKEN]


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _not_finite(logits: Tensor, row: int) -> NumericalError:
    """The error that names the first bad element."""
    found = "nothing but -inf"
    for token, value in enumerate(logits[row].to("cpu").memoryview()):
        if math.isnan(value) or value == math.inf:
            found = f"{value} for token id {token}"
            break
    return NumericalError(
        f"the model produced logits that cannot be sampled: found {found}, expected finite numbers; the weights hold "
        "NaN or infinity, or overflow in their type"
    )
