"""Runs one step: fills the batch, calls the model, has tokens chosen, hands each sequence what is its."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from collections.abc import Sequence as Collection
from time import perf_counter
from typing import Any, Protocol, TypeVar

from pio.cache.batch import Batch
from pio.cache.protocol import Cache
from pio.engine import request_log
from pio.engine.media_encoder import Encoder
from pio.engine.sequence import NO_SLOT, Sequence
from pio.errors import PioError
from pio.memory.budget import MemoryBudget
from pio.memory.refusal import memory_refused
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor

T = TypeVar("T")


class Model(Protocol):
    """What the engine needs of a model."""

    @property
    def vocab_size(self) -> int:
        """Length of a row of logits."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of a row of embeddings; 0 where none is taken but those of tokens."""
        ...

    @property
    def axes(self) -> int:
        """How many numbers place a token for rotary embedding."""
        ...

    @property
    def levels(self) -> int:
        """How many of the first layers have rows added behind them where a prompt brings embeddings."""
        ...

    @property
    def encoder(self) -> Encoder | None:
        """What makes embeddings of pictures; None for text alone."""
        ...

    @property
    def max_positions(self) -> int:
        """Tokens of the context."""
        ...

    @property
    def max_batch_tokens(self) -> int:
        """Tokens one forward takes."""
        ...

    @property
    def max_batch_sequences(self) -> int:
        """Sequences one forward takes."""
        ...

    @property
    def max_batch_outputs(self) -> int:
        """Rows of logits one forward gives."""
        ...

    def new_batch(self, tokens: int, sequences: int, blocks: int, outputs: int, /) -> Batch:
        """Return an empty batch for so many tokens, sequences, cache blocks of each and rows of logits."""
        ...

    def forward(self, batch: Batch, cache: Any, /) -> Tensor:  # the cache that the model makes
        """Return the logits of the batch's output rows, float32 (R, vocabulary), valid until the next call."""
        ...


class Runner:
    """Owns what steps reuse: the batch and the sampler's scratch.

    Attributes:
        device: Where the model runs.
        computed: When the last step was computed, by ``time.perf_counter``. A GPU is at work while its first tokens are
            asked for, so that is known behind ``consume``.
    """

    def __init__(
        self,
        model: Model,
        cache: Cache,
        *,
        max_tokens: int,
        max_sequences: int,
        max_length: int,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._model = model
        self._cache = cache
        blocks = -(-max_length // cache.block_size)
        slices = max_sequences
        if cache.state_slots > max_sequences:  # prompts may be cut at the end of each block
            slices += max_sequences + max_tokens // cache.block_size
        self._batch = model.new_batch(max_tokens, slices, blocks, model.max_batch_outputs)
        self.device = self._batch.record.device
        self._sampler = Sampler(model.vocab_size, budget, rows=max_sequences, device=self.device)
        self.computed = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the scratch."""
        return self._sampler.nbytes

    def forward(self, plan: Collection[Sequence]) -> Tensor:
        """Compute the planned tokens; the logits of those that need them."""
        batch, row, self.computed = self._batch, 0, 0.0
        batch.begin()
        for sequence in plan:
            past, first = sequence.num_computed, batch.num_tokens
            if sequence.cuts:
                _add_cut(batch, sequence)
            else:
                tokens = sequence.tokens[past : past + sequence.scheduled]
                if sequence.draft:
                    tokens.extend(sequence.draft)
                batch.add(tokens, past, sequence.blocks, sequence.rows, sequence.slot, tentative=bool(sequence.draft))
            if sequence.positions is not None:
                batch.turn(first, sequence.positions.of(past, sequence.scheduled))
            if sequence.embeddings:
                for given in sequence.scheduled_embeddings():
                    batch.place(first + given.first, given.rows, given.additions)
            sequence.row = row
            row += sequence.rows
            if past == sequence.reused:
                sequence.consumer.begin()
        try:
            for sequence in plan:
                sequence.choice = sequence.consumer.choose(sequence, sequence.row) if sequence.rows else None
            self._sampler.bring([s.choice for s in plan if s.choice is not None], batch)
            logits = self._model.forward(batch, self._cache)
        finally:
            batch.forget_embeddings()  # those of the last prompt must not live until the next one comes
        if self.device.stream is None:
            self.computed = perf_counter()
        for sequence in plan:
            if sequence.cuts:
                _go_on(sequence)
        return logits

    def consume(self, plan: Collection[Sequence], logits: Tensor, finished: list[Sequence]) -> None:
        """Choose tokens and hand them out.

        Args:
            plan: What the step computed.
            logits: Of its rows.
            finished: Gets the finished sequences, failed ones and dead ones among them; also where an error ends this.
        """
        finished += [s for s in plan if s.consumer.dead]  # whoever cancelled them may have been interrupted in that
        taking = [s for s in plan if s.rows and s not in finished]
        at = 0  # which of a sequence's rows: the next one counts where the token before it came as drafted
        while taking:
            choices = [choice for s in taking if (choice := _choice(s, at)) is not None]
            if choices:
                self._sampler.sample(logits, choices)  # which waits for the step
                self.computed = self.computed or perf_counter()
                self._sample_again(taking, logits, at)
                finished += [s for s in taking if s.consumer.dead]
            finished.extend(s for s in taking if s not in finished and _take(s, logits, s.row + at))
            taking = [s for s in taking if s.draft and s.confirmed and s not in finished]
            at += 1
        if not self.computed:
            self.wait()
            self.computed = perf_counter()
        for sequence in plan:
            if sequence.draft:  # of its tokens those stand that came; one that is dead has none
                sequence.scheduled = len(sequence.tokens) - sequence.num_computed - 1
            sequence.num_computed += sequence.scheduled

    def wait(self) -> None:
        """Wait until what was asked of the device is done; a CPU has done it by now."""
        if self.device.stream is not None:
            self.device.stream.wait()

    def _sample_again(self, taking: Collection[Sequence], logits: Tensor, at: int) -> None:
        """Have tokens chosen in place of those that are refused; who fails in that is dead."""
        again = [choice for s in taking if (choice := _choice_again(s, s.row + at)) is not None]
        if again:
            self._sampler.sample(logits, again)


def _take(sequence: Sequence, logits: Tensor, row: int) -> bool:
    """Have a sequence take what a row gives; return whether it is finished, be it by an error."""
    return _alone(sequence, lambda: sequence.consumer.take(sequence, logits, row), failed=True)


def _choice_again(sequence: Sequence, row: int) -> Choice | None:
    """How to choose a token in place of one that is refused; None where none is, or the sequence fails."""
    return _alone(sequence, lambda: sequence.consumer.choose_again(sequence, row), failed=None)


def _alone(sequence: Sequence, call: Callable[[], T], *, failed: T) -> T:
    """Do something for a sequence, which ends with an error that comes of it, and no other does."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):  # no fault of this sequence
        raise
    except BaseException as error:  # a tokenizer's Rust panic is no Exception
        request_log.failed(told := deliverable(error), [sequence])
        sequence.consumer.fail(told)
        return failed


def _choice(sequence: Sequence, at: int) -> Choice | None:
    """How to choose the token of a sequence's row; None where the logits themselves are wanted."""
    choice, sequence.choice = sequence.choice, None
    return choice or sequence.consumer.choose(sequence, sequence.row + at)


def _add_cut(batch: Batch, sequence: Sequence) -> None:
    """Add a sequence as slices; each goes on in another slot, and leaves the states before it where they are."""
    past, end, source = sequence.num_computed, sequence.num_computed + sequence.scheduled, sequence.slot
    slot = source
    for length, following, _ in (*sequence.cuts, (end, NO_SLOT, False)):
        rows = max(0, min(length - past, sequence.rows - (end - length)))
        batch.add(sequence.tokens[past:length], past, sequence.blocks, rows, slot, source)
        past, source, slot = length, slot, following


def _go_on(sequence: Sequence) -> None:
    """Take a sequence on into the last of its slots; the states of each cut are in the slot before."""
    slots = [sequence.slot, *(slot for _, slot, _ in sequence.cuts)]
    sequence.slot = slots.pop()
    sequence.cuts = [(length, slot, parts) for (length, _, parts), slot in zip(sequence.cuts, slots, strict=True)]


def deliverable(error: BaseException) -> PioError:
    """Return the error as callers get it, without the frames that would keep a model's memory alive."""
    told = "".join(traceback.format_exception(error))
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    if isinstance(error, PioError):
        return error
    refused = memory_refused(error, "the model ran")
    if refused is not None:
        refused.__cause__ = error
        return refused
    error.add_note(told)
    wrapped = PioError(f"the model failed while it ran: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
