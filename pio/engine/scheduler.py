"""Decides which tokens of which sequences the next step computes: first come, first served."""

from __future__ import annotations

from collections import OrderedDict

from pio.engine.cache_manager import CacheManager
from pio.engine.sequence import Sequence, Status
from pio.errors import ConfigError


class Scheduler:
    """Continuous batching over a fixed pool of cache blocks.

    Every step decodes one token of each sequence that has its prompt behind it, then spends what is left on prompts
    in the order of arrival, in chunks. A prompt starts when its blocks are free, and no later one overtakes it unless
    its pictures are still being encoded. A
    decoding sequence that finds no free block takes those of the youngest one, which starts again later; its tokens
    stay the same, for a row's bits do not depend on how it was chunked. Several answers to one prompt wait for the
    first of them to compute it, and go on from there.

    Attributes:
        waiting: Sequences not begun, or put back, in the order of arrival; each can be taken out wherever it stands.
        running: Sequences with blocks, in the order of arrival.
        plan: What ``schedule`` chose last; each sequence's ``scheduled`` says how many tokens.
    """

    def __init__(self, cache: CacheManager, *, max_tokens: int, max_outputs: int, prefill_chunk: int) -> None:
        """Set the limits of a step.

        Args:
            cache: What sequences are kept in; it has a slot for each that runs.
            max_tokens: Tokens of a step.
            max_outputs: Rows of logits of a step.
            prefill_chunk: Prompt tokens of a step, over all sequences.

        Raises:
            ConfigError: The limits contradict each other.
        """
        max_sequences = cache.num_slots
        for name, value, least in (
            ("max_batch_sequences", max_sequences, 1),
            ("prefill_chunk", prefill_chunk, 1),
            ("max_batch_tokens", max_tokens, max_sequences),
            ("max_batch_outputs", max_outputs, max_sequences),
        ):
            if value < least:
                raise ConfigError(f"{name}={value} is too small: expected at least {least}, one for each sequence")
        self.cache = cache
        self.waiting: OrderedDict[Sequence, None] = OrderedDict()
        self.running: list[Sequence] = []
        self.plan: list[Sequence] = []
        self._max_tokens = max_tokens
        self._max_outputs = max_outputs
        self._prefill_chunk = prefill_chunk

    @property
    def busy(self) -> bool:
        """Whether any sequence is not finished."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind all others."""
        self.waiting[sequence] = None

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and take back what it holds of the cache."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        elif sequence.status is Status.WAITING:
            self.waiting.pop(sequence, None)  # one that was cancelled on its way here never was in it
        self.cache.release(sequence)
        sequence.status = Status.FINISHED

    def reset(self) -> None:
        """Forget all sequences, in whatever state an error left them, and have the whole cache back."""
        for sequence in (*self.running, *self.waiting):
            sequence.status = Status.FINISHED
        self.running.clear()
        self.waiting.clear()
        self.plan.clear()
        self.cache.reset()

    def schedule(self) -> list[Sequence]:
        """Choose the next step; empty only where nothing runs, and whatever waits has pictures to be encoded first."""
        self.plan.clear()
        self._schedule_decodes()
        if len(self.plan) < len(self.running) or self.waiting:
            self._schedule_prompts()
        return self.plan

    def _schedule_decodes(self) -> None:
        i = 0
        while i < len(self.running):
            sequence = self.running[i]
            if sequence.decodes and self._grow(sequence):
                sequence.plan(1)
                self.plan.append(sequence)
            i += 1

    def _schedule_prompts(self) -> None:
        budget = min(self._max_tokens - len(self.plan), self._prefill_chunk)
        # every running answer keeps its row of logits, so that scoring a long prompt holds none of them up
        outputs = self._max_outputs - sum(s.outputs == 1 for s in self.running)
        for sequence in self.running:
            if not sequence.decodes:
                budget, outputs = self._schedule_prompt(sequence, budget, outputs)
        while budget > 0 and outputs > 0 and self._admit():
            newest = self.running[-1]
            outputs -= newest.outputs == 1
            budget, outputs = self._schedule_prompt(newest, budget, outputs)

    def _grow(self, sequence: Sequence) -> bool:
        """Make room for one more token, at the expense of younger sequences; False where it had to give way itself."""
        while not self.cache.grow(sequence, len(sequence.tokens)):
            youngest = self.running.pop()  # not in the plan: older ones come first
            self.cache.release(youngest)
            youngest.status = Status.WAITING
            self.waiting[youngest] = None
            self.waiting.move_to_end(youngest, last=False)
            if youngest is sequence:
                return False
        return True

    def _schedule_prompt(self, sequence: Sequence, budget: int, outputs: int) -> tuple[int, int]:
        """Plan a chunk of a prompt; return what is left of the budget of tokens and of output rows."""
        count = min(sequence.pending, budget)
        sequence.plan(count)
        if sequence.outputs > 1:  # else its row is kept already
            count -= max(0, sequence.rows - outputs)
            sequence.plan(count)
            outputs -= sequence.rows
        if count > 0:
            self.plan.append(sequence)
        return budget - count, outputs

    def _admit(self) -> bool:
        """Start the sequence that has waited longest, if it fits beside those that run.

        One whose pictures are not encoded yet lets others pass.
        """
        sequence = next((s for s in self.waiting if not s.missing), None)
        if sequence is None:
            return False
        if self._awaited(sequence) is not None:
            return False
        # a block in reserve for each running sequence, else the newcomer would soon be put back
        if not self.cache.admit(sequence, reserve=len(self.running)):
            return False
        self._start(sequence)
        return True

    def _awaited(self, sequence: Sequence) -> Sequence | None:
        """Return who is about to compute the prompt that a sequence shares; None where it has to do so itself."""
        if sequence.family is None:
            return None
        return next((other for other in reversed(self.running) if sequence.awaits(other)), None)

    def _start(self, sequence: Sequence) -> None:
        del self.waiting[sequence]
        self.running.append(sequence)
        sequence.status = Status.RUNNING

    def share_prompt(self) -> list[Sequence]:
        """Let those go on that waited for a prompt which the model has just seen; their logits are the same row.

        Returns:
            Sequences to be treated as if they had been in the plan, too.
        """
        started: list[Sequence] = []
        while self.waiting and self.running:
            sequence = next((s for s in self.waiting if not s.missing), None)
            first = None if sequence is None else self._awaited(sequence)
            # a block for it and a block in reserve for each running sequence; else it computes the prompt for itself
            if (
                sequence is None
                or first is None
                or not first.rows
                or sequence.consumer.dead
                or not self.cache.fork(first, sequence, reserve=len(self.running) + 1)
            ):
                break
            self._start(sequence)
            sequence.consumer.begin()
            sequence.num_computed, sequence.scheduled = first.num_computed, first.scheduled
            sequence.row, sequence.rows = first.row, first.rows
            started.append(sequence)
        return started
